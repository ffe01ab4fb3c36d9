#!/bin/bash
# skopeo pushes an image to hull-registry and copies it back; the bytes are the same. Over plain
# HTTP, and over TLS with a password.
cd "$(dirname "$0")" && . ../support/registry-common.sh
need skopeo; need python3; need openssl

make_image "$work/image"
start_hull_registry plain
skopeo copy -q --dest-tls-verify=false "oci:$work/image:latest" "docker://$registry/team/app:1.0"
skopeo copy -q --src-tls-verify=false "docker://$registry/team/app:1.0" "oci:$work/back:latest"
same_blobs "$work/image" "$work/back"
tags=$(skopeo list-tags --tls-verify=false "docker://$registry/team/app")
grep -q '"1.0"' <<<"$tags" || fail "the tag is not listed: $tags"
skopeo inspect --tls-verify=false "docker://$registry/team/app:1.0" >/dev/null

# Within the registry: blobs are mounted, not sent.
skopeo copy -q --src-tls-verify=false --dest-tls-verify=false \
  "docker://$registry/team/app:1.0" "docker://$registry/other/app:2.0"
# As Docker's own manifest types.
skopeo copy -q --dest-tls-verify=false -f v2s2 "oci:$work/image:latest" \
  "docker://$registry/team/app:docker"
skopeo delete --tls-verify=false "docker://$registry/team/app:docker"
if skopeo inspect --tls-verify=false "docker://$registry/team/app:docker" >/dev/null 2>&1; then
  fail "the deleted manifest is still there"
fi
skopeo inspect --tls-verify=false "docker://$registry/other/app:2.0" >/dev/null

openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 \
  -addext subjectAltName=IP:127.0.0.1 -keyout "$work/key.pem" -out "$work/ca.crt" 2>/dev/null
# bcrypt of "secret"
echo 'ann:$2y$04$u7lQWPQSk2fIFUntYl/E9.qmvcmdyeI0wgkD0r7XgHYeVKYpn0gTS' >"$work/htpasswd"
start_hull_registry tls --tls-cert "$work/ca.crt" --tls-key "$work/key.pem" \
  --htpasswd "$work/htpasswd"
mkdir "$work/certs" && cp "$work/ca.crt" "$work/certs/"
if skopeo copy -q --dest-cert-dir "$work/certs" --dest-creds ann:wrong \
  "oci:$work/image:latest" "docker://$registry/app" 2>/dev/null; then
  fail "a wrong password was accepted"
fi
skopeo copy -q --dest-cert-dir "$work/certs" --dest-creds ann:secret \
  "oci:$work/image:latest" "docker://$registry/app"
skopeo copy -q --src-cert-dir "$work/certs" --src-creds ann:secret \
  "docker://$registry/app" "oci:$work/back-tls:latest"
same_blobs "$work/image" "$work/back-tls"
echo "skopeo and hull-registry agree"
