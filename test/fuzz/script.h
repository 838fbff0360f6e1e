/*
 * The little language that fuzz inputs are written in: what hosts do to a target, byte by byte.  Each operation is one byte
 * (modulo SCRIPT_NR_OPS) and its arguments; an input that ends early reads zeroes.  Most of what can be said is good enough
 * to get past the first checks, which is what lets a fuzzer reach what lies behind them.
 */
#ifndef TEST_FUZZ_SCRIPT_H
#define TEST_FUZZ_SCRIPT_H

enum script_op {
	SCRIPT_OPEN,	  /* a new connection, and use it */
	SCRIPT_USE,	  /* idx: an open one */
	SCRIPT_RAW,	  /* n, n bytes */
	SCRIPT_IC,	  /* dgst, hpda */
	SCRIPT_CONNECT,	  /* qid, sqsize, choice: of NQN, host, controller */
	SCRIPT_COMMAND,	  /* opcode, flags, cid, nsid, SGL choice, length choice, six bytes for cdw10 to 15, data length choice */
	SCRIPT_H2C,	  /* choice: of what is wrong with it, length */
	SCRIPT_PROPERTY,  /* write?, offset, value */
	SCRIPT_TERM,	  /* fes */
	SCRIPT_WAIT,	  /* n: n * n * 10 us */
	SCRIPT_CLOSE,	  /* abort? */
	SCRIPT_SPOIL,	  /* at, mask: a byte of the next PDU */
	SCRIPT_NR_OPS
};

#endif
