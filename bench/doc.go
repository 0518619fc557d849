// Package bench measures the built gateway from outside, as its users meet it: it starts the binary, sends it requests and edits its
// files. It imports nothing of the gateway.
package bench
