#!/usr/bin/env bash
# Runs one test program for Cargo (`runner`), with more threads where it does little but wait: for workers, brokers and times.
# Cargo's own number is that of the processors, and half of each stays idle then. What starts whole clusters has one more only.
set -euo pipefail

case "${1##*/}" in
  celery_amqp-* | celery_matrix-* | celery_redis-* | command_line-* | http_workers-* | worker_package-*)
    processors=$(nproc)
    export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((processors > 4 ? processors : 4))}"
    ;;
  operator-* | situations-*)
    processors=$(nproc)
    export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((processors + 1))}"
    ;;
esac
exec "$@"
