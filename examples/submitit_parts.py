"""Run a clipmem command in parts: an array of jobs that submitit sends to Slurm, or starts on one machine.

    pip install submitit
    python examples/submitit_parts.py --parts 16 --gpus 1 -- clipmem export embeddings --model M --data D --out E

After `--`, write any command that has `--part`: export embeddings, score, curate --model or audit --model. When all
parts are done, a last job runs the command without `--part`, which checks that nothing is missing. If parts failed, the
script prints their exit codes and logs instead, and exits with code 1. Run it again to do only what is missing. A job
that reaches its time limit is queued again, up to three times, and resumes. `--cluster local` starts all parts at once,
debug runs them in turn in this terminal, without logs. For other options of sbatch, set variables: SBATCH_ACCOUNT, ...
submitit stores the command as a pickle in the folder of logs, which all machines must see. Never run on Slurm or GPUs.
"""

import argparse
import re
import subprocess
import sys

import submitit


class Command(submitit.helpers.Checkpointable):
    """A command that resumes when it is started again, as submitit does after a time limit."""

    def __call__(self, words):
        """Run the command; if it fails, the job fails."""
        subprocess.run(words, check=True)  # noqa: S603


def finish(jobs):
    """Wait for all jobs, and print which failed, why, and where their logs are; then exit with code 1."""
    errors = {name: job.exception() for name, job in jobs.items()}
    for name, error in errors.items():
        if error:
            reason = re.search(r"exit status \d+|died with <.+>|not requeued because: [^.]+|state: \w+", str(error))
            print(f"{name}: {reason[0] if reason else error}, log {jobs[name].paths.stderr}", file=sys.stderr)
    if any(errors.values()):
        sys.exit("Read the logs, and run the same command again: it does only what is missing.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a clipmem command in parts, as an array of jobs.")
    parser.add_argument("--parts", type=int, required=True, help="number of jobs")
    parser.add_argument("--cluster", help="slurm, local or debug (slurm if there is srun, or else local)")
    parser.add_argument("--gpus", type=int, help="GPUs per job (none)")
    parser.add_argument("--cores", type=int, default=4, help="cores per job (4)")
    parser.add_argument("--minutes", type=int, default=60, help="time limit of a job (60)")
    parser.add_argument("--partition", help="partition of Slurm (its default)")
    parser.add_argument("--logs", default="submitit", help="folder of logs (submitit)")
    parser.add_argument("command", nargs="+", help="after --: clipmem and its arguments, without --part")
    options = parser.parse_args()
    executor = submitit.AutoExecutor(options.logs, cluster=options.cluster)
    limits = {"timeout_min": options.minutes, "cpus_per_task": options.cores, "gpus_per_node": options.gpus}
    srun = [f"--cpus-per-task={options.cores}"]  # Slurm 22.05 and 23.02 do not take it from sbatch
    executor.update_parameters(name="clipmem", **limits, slurm_partition=options.partition, slurm_srun_args=srun)
    command = [sys.executable, "-m", *options.command]
    parts = [f"{k}/{options.parts}" for k in range(1, options.parts + 1)]
    jobs = executor.map_array(Command(), [[*command, "--part", part] for part in parts])
    finish({f"part {part}": job for part, job in zip(parts, jobs, strict=True)})
    finish({"without --part": executor.submit(Command(), command)})
