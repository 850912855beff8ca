#!/usr/bin/env bash
# An authority, the server's certificate, and one for each client named: for tests, and for a service of one's own
# people. Certificates of a company's authority go into the same places.
#
#   deploy/tls/make_certificates.sh [--folder deploy/secrets] [--days 365] [--client NAME]... [NAME_OF_SERVER]...
#
# Writes FOLDER/authority/ca.key, which belongs on another machine; FOLDER/server/, which the server reads, and
# FOLDER/clients/NAME/, which is handed to that client. The authority is kept when it is there already, and with --client
# alone the server's certificate, too.
set -euo pipefail
umask 077

die() { echo "make_certificates: $1" >&2; exit 1; }
# What openssl prints is shown where it fails.
quietly() { local said; said=$("$@" 2>&1) || die "$said"; }

command -v openssl >/dev/null || die "openssl is needed (Debian, Ubuntu: apt-get install openssl)"
folder="$(dirname "$0")/../secrets" days=365 clients=() names=()
while [ $# -gt 0 ]; do
    case "$1" in
        --folder) folder="${2:?--folder takes a path}"; shift 2 ;;
        --days) days="${2:?--days takes a number}"; shift 2 ;;
        --client) clients+=("${2:?--client takes a name}"); shift 2 ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) die "there is no option $1; --help tells" ;;
        *) names+=("$1"); shift ;;
    esac
done
[[ "$days" =~ ^[1-9][0-9]*$ ]] || die "--days takes a number of days, got '$days'"
for name in "${clients[@]}" "${names[@]}"; do
    [[ "$name" =~ ^[A-Za-z0-9.:_-]+$ ]] || die "a name has letters, digits and . : _ - only, got '$name'"
done

mkdir -p "$folder/authority" "$folder/server" "$folder/clients"
folder="$(cd "$folder" && pwd)"
authority="$folder/authority"
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

if [ ! -f "$authority/ca.key" ]; then
    # Another authority would shut out every client that has a certificate.
    [ ! -f "$authority/ca.pem" ] || die "$authority/ca.key is not here: copy it back for this, or remove $authority/ca.pem for a new authority, from which every client then needs a certificate"
    quietly openssl req -x509 "${key[@]}" -days 3650 -subj "/CN=clipserve authority" \
        -addext "basicConstraints=critical,CA:true,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$authority/ca.key" -out "$authority/ca.pem"
fi

# sign FOLDER FILE SUBJECT EXTENSIONS
sign() {
    mkdir -p "$1"
    quietly openssl req "${key[@]}" -subj "/CN=$3" -keyout "$1/$2.key" -out "$1/$2.csr"
    quietly openssl x509 -req -in "$1/$2.csr" -CA "$authority/ca.pem" -CAkey "$authority/ca.key" -days "$days" \
        -set_serial "0x$(openssl rand -hex 16)" -extfile <(printf '%s\n' "$4") -out "$1/$2.pem"
    rm "$1/$2.csr"
    cp "$authority/ca.pem" "$1/ca.pem"
    chmod 644 "$1"/*.pem
}

if [ ${#names[@]} -gt 0 ] || [ ${#clients[@]} = 0 ] || [ ! -f "$folder/server/server.pem" ]; then
    # `server` and `triton` are its names on compose's network, `proxy` the balancer's.
    alternatives="DNS:localhost,DNS:server,DNS:triton,DNS:proxy,IP:127.0.0.1"
    for name in "${names[@]}"; do
        if [[ "$name" =~ ^[0-9.]+$ || "$name" == *:* ]]; then alternatives+=",IP:$name"; else alternatives+=",DNS:$name"; fi
    done
    # clientAuth as well: towards the Tritons the proxy is a client.
    sign "$folder/server" server clipserve "$(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:false' "$alternatives")"
    # HAProxy wants both in one file.
    cat "$folder/server/server.pem" "$folder/server/server.key" >"$folder/server/proxy.pem"
    chmod 600 "$folder/server/proxy.pem"
    echo "server: $folder/server (for ${alternatives//,/, })"
fi
for name in "${clients[@]}"; do
    sign "$folder/clients/$name" client "$name" "$(printf 'extendedKeyUsage=clientAuth\nbasicConstraints=CA:false')"
done

# The containers' user reads the server's files; run as root, this script would otherwise keep them to root.
if [ "$(id -u)" = 0 ]; then chown -R "${CLIPSERVE_UID:-1000}:${CLIPSERVE_GID:-1000}" "$folder/server" "$folder/clients"; fi
chmod 755 "$folder/server" "$folder/clients" "$folder"
for name in "${clients[@]}"; do echo "client: $folder/clients/$name"; done
