#!/usr/bin/env bash
# Build kfloop's images, from the repository's root or anywhere:
#   infra/images/build.sh                     all three, as infra/images.lock names them
#   infra/images/build.sh cpu [gpu] [triton]  some of them
#   infra/images/build.sh pin                 print bases.env with the digests that the registries give now
# ENGINE=docker or podman; PUSH=1 pushes and prints the digests for infra/images.lock and infra/components/images/kustomization.yaml.
# Beside each image its bill of materials goes to dist/sbom-NAME.cdx.json (syft, CycloneDX; without syft, what pip reports).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
engine=${ENGINE:-$(command -v docker || command -v podman || true)}
here=infra/images
# shellcheck source=infra/images/bases.env
source "$here/bases.env"

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }
base() { if [ -n "$2" ]; then echo "$1@$2"; else say "$1 has no digest in bases.env: the tag alone counts"; echo "$1"; fi; }
pinned() { grep -E "^$1==" constraints.txt | cut -d= -f3 | grep . || die "constraints.txt does not pin $1"; }
locked() { sed -nE "s/^  $1: *\"?([^\"]+)\"? *\$/\1/p" infra/images.lock | sed 's/@sha256:.*//' | grep . || die "infra/images.lock names no $1"; }

build() {
    local name=$1 image
    image=$(locked "$name")
    case $image in *:*) ;; *) image="$image:$(sed -nE 's/^__version__ = "(.*)"/\1/p' kfloop/__init__.py)" ;; esac
    say "$name: $image"
    case $name in
        cpu | gpu)
            local index=https://download.pytorch.org/whl/cpu
            if [ "$name" = gpu ]; then index=https://download.pytorch.org/whl/cu130; fi
            "$engine" build -f "$here/kfloop.Containerfile" -t "$image" --build-arg "BASE=$(base "$PYTHON" "$PYTHON_DIGEST")" --build-arg "TORCH_INDEX=$index" .
            ;;
        triton)
            "$engine" build -f "$here/triton.Containerfile" -t "$image" --build-arg "BASE=$(base "$TRITON" "$TRITON_DIGEST")" \
                --build-arg "NUMPY=$(pinned numpy)" --build-arg "ONNXRUNTIME=$(pinned onnxruntime)" .
            ;;
    esac
    if command -v syft > /dev/null; then
        syft "$image" -o "cyclonedx-json=dist/sbom-$name.cdx.json"
    else
        say "no syft here: the bill of materials is what pip installed"
        "$engine" run --rm "$image" cat /opt/kfloop/packages.json > "dist/sbom-$name.pip.json"
    fi
    if [ "${PUSH:-0}" = 1 ]; then
        "$engine" push "$image"
        "$engine" inspect --format '{{index .RepoDigests 0}}' "$image" | sed "s/^/  $name: /"
    fi
}

pin() {
    local name
    for name in PYTHON TRITON; do
        "$engine" pull --quiet "${!name}" > /dev/null
        printf '%s=%s\n%s_DIGEST=%s\n' "$name" "${!name}" "$name" "$("$engine" inspect --format '{{index .RepoDigests 0}}' "${!name}" | cut -d@ -f2)"
    done
}

words=("$@")
if [ $# = 0 ]; then words=(cpu gpu triton); fi
for word in "${words[@]}"; do
    case $word in cpu | gpu | triton | pin) ;; *) die "'$word' is none of cpu, gpu, triton, pin" ;; esac
done
[ -n "$engine" ] || die "neither docker nor podman is here; name one with ENGINE"
if [ "${words[0]}" = pin ]; then pin; exit; fi
compgen -G 'dist/*.whl' > /dev/null || die "no wheel in dist: python -m build --wheel"
for word in "${words[@]}"; do build "$word"; done
