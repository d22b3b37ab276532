# shellcheck shell=bash disable=SC2034
# What the scripts of this folder share, beside what all scripts share. Source it.

k8s_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../lib.sh
. "$k8s_here/../../lib.sh"
k8s_cache=${cache:?}/k8s
root=${root:?}
