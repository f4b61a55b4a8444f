#!/usr/bin/env bash
# System packages of the tests: Slurm's daemons and a database for the throwaway cluster, pdflatex for the tables. Debian and Ubuntu.
set -euo pipefail

packages=()
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null \
    || packages+=(slurmctld slurmd slurm-client)
# The core package of MariaDB has the server's program, but no service that would start by itself.
command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null \
    || packages+=(slurmdbd slurm-wlm-mysql-plugin mariadb-server-core)
command -v pdflatex >/dev/null || packages+=(texlive-latex-base texlive-latex-recommended)
[ ${#packages[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "not found, and no apt-get to install them: ${packages[*]}; the tests that need them will say so and be skipped" >&2
    exit 0
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
# The throwaway cluster starts daemons of its own: the distribution's services stay off while this installs them.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
