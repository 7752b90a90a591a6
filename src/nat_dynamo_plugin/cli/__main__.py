"""`python -m nat_dynamo_plugin.cli ...`: the same as `nat dynamo ...`."""

from nat_dynamo_plugin.cli.commands import dynamo

if __name__ == "__main__":
    dynamo(prog_name="nat dynamo")
