#!/usr/bin/env python3
"""Every parameter of every method with values that nobody should send: each call is answered, an error says which parameter is to
blame, and the daemon goes on."""
import ferrule

NQN = "nqn.2026-01.io.ferrule:h"
VALUES = [{"x": 1}, [1], -1, 1e300, 1.5, "a\0b", "x" * 5000, True, "", 0, "\U0001F600", (1 << 64) - 1, "\u00e9" * 301]
# What a call needs to come as far as the parameter that is wrong.
RIGHT = {"name": "lvs/v", "nqn": NQN, "lvs_name": "lvs", "bdev_name": "m", "trtype": "TCP", "size_in_mib": 16, "lvol_name": "w",
         "host": "nqn.2026-01.io.ferrule:host", "new_name": "w", "snapshot_name": "lvs/s", "clone_name": "c",
         "listen_address": {"trtype": "TCP", "traddr": "127.0.0.1", "adrfam": "IPv4", "trsvcid": "1"},
         "namespace": {"bdev_name": "lvs/v", "nsid": 1, "nguid": "0" * 31 + "1", "eui64": "0" * 15 + "1", "uuid": "nonsense",
                       "anagrpid": 1, "no_auto_visible": False, "ptpl_file": None}}
# Methods that ignore what they do not know, as SPDK's do, and so do not say what they know.
IGNORANT = {"nvmf_create_transport": ["trtype", "tgt_name", "max_queue_depth", "max_io_size", "sock_priority", "c2h_success"],
            "nvmf_subsystem_add_host": ["nqn", "host", "tgt_name", "psk"],
            "nvmf_subsystem_add_listener": ["nqn", "listen_address", "secure_channel", "ana_state"],
            "nvmf_subsystem_add_ns": ["nqn", "namespace", "tgt_name"]}


class Hostile(ferrule.Case):
    def setUp(self):
        super().setUp()
        self.target = self.daemon("--ephemeral")
        self.rpc = self.target.rpc()
        self.addCleanup(self.rpc.close)
        self.rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 262144})
        self.rpc("bdev_lvol_create_lvstore", {"bdev_name": "m", "lvs_name": "lvs"})
        self.rpc("bdev_lvol_create", {"lvs_name": "lvs", "lvol_name": "v", "size_in_mib": 16, "thin_provision": True})
        self.rpc("nvmf_create_subsystem", {"nqn": NQN})

    def parameters(self, method):
        """From the daemon's own answer to one that it does not know."""
        try:
            self.rpc(method, {"no such parameter": 1})
        except ferrule.RpcError as error:
            _, _, known = error.data.get("detail", "").partition("known are: ")
            return known.split(", ") if known else []
        self.fail(f"{method} takes anything")

    def values(self, key):
        yield from VALUES
        if isinstance(RIGHT.get(key), dict):
            for member in [*RIGHT[key], "odd"]:
                for value in VALUES:
                    yield {**RIGHT[key], member: value}

    def test_each_wrong_value_is_answered_and_the_parameter_named(self):
        calls = 0
        tables = {m: IGNORANT.get(m) or self.parameters(m) for m in self.rpc("rpc_get_methods")}
        for method, keys in sorted(tables.items()):
            for key in keys:
                for value in self.values(key):
                    calls += 1
                    try:
                        self.rpc(method, {**{k: v for k, v in RIGHT.items() if k in keys}, key: value})
                    except ferrule.RpcError as error:
                        if not error.data.get("parameter") or not error.data.get("detail"):
                            self.fail(f"{method}, {key} {str(value)[:60]}: {error}")
        self.assertGreater(calls, 2000)


if __name__ == "__main__":
    ferrule.main()
