#!/usr/bin/env bash
# System packages of the tests: Slurm's daemons for the throwaway cluster, pdflatex for the tables. Debian and Ubuntu.
set -euo pipefail

packages=()
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null \
    || packages+=(slurmctld slurmd slurm-client)
command -v pdflatex >/dev/null || packages+=(texlive-latex-base texlive-latex-recommended)
[ ${#packages[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "not found, and no apt-get to install them: ${packages[*]}; the tests that need them will say so and be skipped" >&2
    exit 0
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}"
