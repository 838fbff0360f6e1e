#!/usr/bin/python3
"""jcheck.py FILE EXPRESSION...: the JSON document in FILE is `d`; each Python expression must be true of it."""
import json
import sys

with open(sys.argv[1]) as f:
    text = f.read()
try:
    d = json.loads(text)
except json.JSONDecodeError:
    print(f'{sys.argv[1]} is not JSON: {text[:200]!r}')
    sys.exit(1)
bad = 0
for expression in sys.argv[2:]:
    try:
        good = eval(expression, {'d': d})
    except Exception as e:  # a missing key is a failed check like any other
        good = False
        expression += f' [{type(e).__name__}: {e}]'
    if not good:
        bad += 1
        print(f'{sys.argv[1].rsplit("/", 1)[-1]}: not true: {expression}')
if bad:
    print(f'the document: {json.dumps(d)[:2000]}')
sys.exit(bad != 0)
