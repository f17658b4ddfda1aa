"""A small Ray cluster of one machine that deploys a config file: `python -m tests.cluster CONFIG`, until stdin ends.

Started as the leader of a session, it and all that it starts can be found by that session's id.
"""

import os
import secrets
import sys
import tempfile

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray leaves one in the home directory
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",  # 10 s is long for a test
}

import ray
from ray import serve
from ray.serve.scripts import run


def main(config: str) -> None:
    """Deploy as `serve run` does, and wait."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            namespace="serve",
            _temp_dir=folder,
        )
        try:
            run.main([config, "--non-blocking"], standalone_mode=False)
            sys.stdin.read()
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
