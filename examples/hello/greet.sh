#!/bin/sh
echo "$GREETING."
echo "I am $(id -un) in $(pwd), on kernel $(uname -r)."
echo "This image was $(cat /etc/hull-built)."
