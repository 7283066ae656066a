"""A node's Weights & Biases key: from the cloud's secret store into ~/.netrc, where W&B looks for it.

python cluster/wandb_key.py /imagegen/wandb-key
gcloud secrets versions access latest --secret=imagegen-wandb-key | python cluster/wandb_key.py -

The argument names a SecureString parameter of AWS Systems Manager, or is `-` for a key on standard input. The key is in
no command line, environment, log or YAML. Where there is no key, or an entry already, nothing is written: runs are then
kept offline.
"""

import os
import sys
from pathlib import Path

import botocore.exceptions
import botocore.session
from botocore.utils import InstanceMetadataRegionFetcher

HOST = "api.wandb.ai"


def main(name: str, netrc: Path) -> int:
    """Write the entry; the exit code."""
    if netrc.exists() and HOST in netrc.read_text():
        print(f"{netrc} has an entry for {HOST} already")
        return 0
    try:
        key = sys.stdin.read().strip() if name == "-" else fetch(name)
    except botocore.exceptions.BotoCoreError as error:
        print(f"no W&B key: {error}; runs are kept offline", file=sys.stderr)
        return 0
    except botocore.exceptions.ClientError as error:
        print(f"no W&B key: {name}: {error.response['Error']['Code']}; runs are kept offline", file=sys.stderr)
        return 0
    if not key:
        print("no W&B key on standard input; runs are kept offline", file=sys.stderr)
        return 0
    descriptor = os.open(netrc, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        os.fchmod(descriptor, 0o600)
        before = file.read()
        file.write("\n" * bool(before and not before.endswith("\n")))  # else the entry would go on the last line
        file.write(f"machine {HOST}\n  login user\n  password {key}\n")
    print(f"W&B key of {'standard input' if name == '-' else name} written to {netrc}")
    return 0


def fetch(name: str) -> str:
    """The decrypted value of a parameter. Raises botocore's errors."""
    session = botocore.session.get_session()
    region = session.get_config_variable("region") or InstanceMetadataRegionFetcher().retrieve_region()
    client = session.create_client("ssm", region_name=region)
    return str(client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]).strip()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PARAMETER|-")
    sys.exit(main(sys.argv[1], Path.home() / ".netrc"))
