#!/usr/bin/env bash
# From a fresh JetPack to an edgeseg that runs: a virtual environment over the system's TensorRT and OpenCV, the
# unpooling plugin, and a look at the machine. Safe to run again.
#
# EDGESEG_ROOT is where / is read from when the system is looked at; tests point it at made-up systems.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname -- "$here")
root=${EDGESEG_ROOT:-}
venv=$repository/.venv-jetson
wheels=
jetpack=
dry_run=false
plugin=true
check=true

usage() {
  cat <<EOF
usage: jetson/setup.sh [--venv FOLDER] [--wheels FOLDER] [--jetpack X.Y] [--no-plugin] [--no-check] [--dry-run]

  --venv FOLDER    the virtual environment to make or bring up to date (default: .venv-jetson in the repository)
  --wheels FOLDER  install from these wheels alone, with no network; jetson/README.md says how to collect them
  --jetpack X.Y    the JetPack version, where the system does not say it: in a container
  --no-plugin      do not build the unpooling plugin; SegNet and ENet then use standard operators
  --no-check       for a docker build, which sees no GPU: do not import TensorRT nor run edgeseg doctor, and build the
                   plugin for the boards of this JetPack
  --dry-run        say what would be done
EOF
}

fail() { # what happened, what to do next
  printf 'error: %s. %s\n' "$1" "$2" >&2
  exit 2
}

say() { printf '%s\n' "$*"; }

run() {
  if $dry_run; then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

while (($#)); do
  case $1 in
    --venv | --wheels | --jetpack)
      (($# > 1)) || fail "$1 needs a value" "See: jetson/setup.sh --help"
      case $1 in
        --venv) venv=$2 ;;
        --wheels) wheels=$2 ;;
        *) jetpack=$2 ;;
      esac
      shift
      ;;
    --no-plugin) plugin=false ;;
    --no-check) check=false ;;
    --dry-run) dry_run=true ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "unknown option $1" "See: jetson/setup.sh --help" ;;
  esac
  shift
done

# -- which JetPack ---------------------------------------------------------------------------------------------------

# L4T as MAJOR.MINOR.PATCH, from its release file, or from dpkg where an image has none. Nothing off a Jetson.
l4t_version() {
  local line version
  if [[ -r $root/etc/nv_tegra_release ]]; then
    read -r line <"$root/etc/nv_tegra_release" || true
    if [[ $line =~ R([0-9]+).*REVISION:\ *([0-9.]+) ]]; then
      printf '%s.%s\n' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
      return
    fi
  fi
  if command -v dpkg-query >/dev/null && [[ -r $root/var/lib/dpkg/status ]]; then
    version=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Version}' nvidia-l4t-core 2>/dev/null || true)
    printf '%s\n' "${version%%-*}"
  fi
}

# JetPack of an L4T version: https://developer.nvidia.com/embedded/jetpack-archive
jetpack_of() {
  case $1 in
    32.*) echo 4 ;;
    34.* | 35.*) echo 5 ;;
    36.2* | 36.3*) echo 6.0 ;;
    36.4 | 36.4.0*) echo 6.1 ;;
    36.4.[123]) echo 6.2 ;;
    36.4.*) echo 6.2.1 ;;
    36.*) echo 6.2.2 ;;
    38.2*) echo 7.0 ;;
    38.*) echo 7.1 ;;
    39.*) echo 7.2 ;;
    *) echo "" ;;
  esac
}

l4t=$(l4t_version)
if [[ -z $jetpack ]]; then
  [[ -n $l4t ]] || fail "this is no Jetson: neither ${root}/etc/nv_tegra_release nor the package nvidia-l4t-core" \
    "On a PC: pip install . (see README.md); in a container: --jetpack X.Y"
  jetpack=$(jetpack_of "$l4t")
  [[ -n $jetpack ]] || fail "L4T $l4t belongs to no JetPack that this script knows" \
    "If it has TensorRT 10.3 or newer, say which JetPack it is like: --jetpack 7.2"
fi
old="edgeseg builds strongly typed networks, which TensorRT has from 10.0 on"
case $jetpack in
  4 | 4.* | 5 | 5.*) fail "JetPack $jetpack has TensorRT 8 and Python 3.8 or older, and $old" \
    "Flash JetPack 6.1 or newer; it is for Orin and Thor, not for Xavier and older boards" ;;
  6 | 6.0*) fail "JetPack $jetpack has TensorRT 8.6, and $old" \
    "Upgrade to 6.1 or newer: with SDK Manager, or over apt as NVIDIA's JetPack documentation says" ;;
  # The last column: compute capabilities of the boards that it runs on, 8.7 of Orin and 11.0 of Thor.
  6.*) python_wanted=3.10 cuda=12.6 tensorrt=10.3 archs=87 ;;
  7.0* | 7.1*) python_wanted=3.12 cuda=13.0 tensorrt=10.13 archs=110 ;;
  7.*) python_wanted=3.12 cuda=13.2 tensorrt=10.16 archs=87,110 ;;
  *) fail "JetPack $jetpack is not known" "Known: 6.1 to 6.2.2, 7.0 to 7.2. Give the nearest: --jetpack 7.2" ;;
esac
say "JetPack $jetpack${l4t:+ (L4T $l4t)}: expecting TensorRT $tensorrt or newer, CUDA $cuda, Python $python_wanted"

# -- what has to be there --------------------------------------------------------------------------------------------

python=${PYTHON:-/usr/bin/python3} # the system's: TensorRT's bindings are made for it
if ! $dry_run; then
  [[ -x $python ]] || fail "no $python" "Install it: sudo apt install python3 python3-venv"
  found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [[ $found == "$python_wanted" ]] || fail "$python is Python $found, and JetPack $jetpack has $python_wanted" \
    "Give the system's own: PYTHON=/usr/bin/python3 jetson/setup.sh"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "Python cannot make virtual environments" \
    "Install that part: sudo apt install python3-venv"
fi
if [[ -n $wheels ]]; then
  compgen -G "$wheels/edgeseg-*.whl" >/dev/null || fail "$wheels has no wheel of edgeseg" \
    "Collect one with those it needs: jetson/README.md, section Offline"
fi

# -- the environment -------------------------------------------------------------------------------------------------

if [[ -e $venv/pyvenv.cfg ]]; then
  grep -qiE '^include-system-site-packages *= *true' "$venv/pyvenv.cfg" || fail \
    "$venv does not see the system's packages, so neither its TensorRT" "Remove it, or give another: --venv FOLDER"
  say "using the environment $venv"
elif [[ -e $venv ]] && [[ -n $(ls -A -- "$venv") ]]; then
  fail "$venv is there and is no virtual environment" "Remove it, or give another: --venv FOLDER"
else
  run "$python" -m venv --system-site-packages "$venv"
fi

pip=("$venv/bin/python" -m pip --disable-pip-version-check install)
source=$repository
if [[ -n $wheels ]]; then
  pip+=(--no-index --find-links "$wheels")
  source=edgeseg
fi
# pip cannot leave one dependency out. So edgeseg comes without any, and then what it asks for comes by name, less
# opencv-python where the system has cv2 (the wheel has no GStreamer, and would hide the system's that has), and less
# TensorRT, which is JetPack's. requirements.py reads the list from edgeseg's own metadata.
run "${pip[@]}" --upgrade --no-deps "$source" || fail "edgeseg could not be installed" \
  "Is there a network? Without one: --wheels FOLDER"
if $dry_run; then
  say "would run: ${pip[*]} \$($venv/bin/python $here/requirements.py --cuda $cuda)"
else
  list=$("$venv/bin/python" "$here/requirements.py" --cuda "$cuda") || fail "edgeseg's requirements cannot be read" \
    "Remove $venv and run this again"
  mapfile -t needed <<<"$list"
  "${pip[@]}" "${needed[@]}" || fail "what edgeseg needs could not be installed" \
    "Is there a network? Without one: --wheels FOLDER"
  "$venv/bin/python" -c 'import cv2' || fail "OpenCV does not import in $venv" \
    "If the system's python3-opencv is broken: sudo apt remove python3-opencv, then run this again"
fi

# -- TensorRT, the plugin, the machine -------------------------------------------------------------------------------

if $check && ! $dry_run; then
  version=$("$venv/bin/python" -c 'import tensorrt; print(tensorrt.__version__)') || fail \
    "Python finds no TensorRT" "Install JetPack's: sudo apt install nvidia-jetpack (or tensorrt python3-libnvinfer)"
  [[ ${version%%.*} -ge 10 ]] || fail "TensorRT is $version, and $old" "Flash JetPack 6.1 or newer"
  say "TensorRT $version"
else
  say "would check: TensorRT 10 or newer imports in $venv"
fi

# JetPack keeps trtexec outside PATH, and the commands of `build-engine --print-trtexec` begin with its name.
trtexec=$root/usr/src/tensorrt/bin/trtexec
if [[ -x $trtexec ]]; then
  run ln -sf "$trtexec" "$venv/bin/trtexec"
fi

if $plugin; then
  # Beside the program, where whoever runs it finds it: a cache belongs to one user.
  library=$venv/share/edgeseg/libedgeseg_plugin.so
  build=("$venv/bin/edgeseg" build-plugin -o "$library")
  # On a board build-plugin asks the GPU. A docker build sees none, and would compile for every GPU there is.
  $check || build+=(--arch "$archs")
  if $dry_run; then
    run "${build[@]}"
  else
    PATH=$PATH:/usr/local/cuda/bin "${build[@]}" || fail "the unpooling plugin was not built" \
      "It needs nvcc and TensorRT's headers: sudo apt install nvidia-jetpack. Or go without it: --no-plugin"
  fi
fi
if $check; then
  run "$venv/bin/edgeseg" doctor || fail "edgeseg does not run here" "The table above says what is missing"
fi
say "next: $venv/bin/edgeseg segment enet-camvid 0 --show"
