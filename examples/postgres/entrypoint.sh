#!/bin/sh
# POSTGRES_PASSWORD is the superuser's password; without one only connections from inside are possible.
set -e
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 >/dev/null
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
  if [ -n "$POSTGRES_PASSWORD" ]; then
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -w -o "-c listen_addresses=''" start >/dev/null
    printf "ALTER USER postgres PASSWORD :'password';\n" | psql -q -v password="$POSTGRES_PASSWORD" >/dev/null
    pg_ctl -w -m fast stop >/dev/null
  fi
fi
exec "$@"
