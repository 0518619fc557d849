// Package xconnect turns extended CONNECT (RFC 8441: WebSocket over HTTP/2) on in net/http, which offers it by the environment variable
// GODEBUG alone and reads that once, when its package is initialised.
//
// The language initialises packages that are ready in the order of their import paths, so that this one, which imports next to nothing
// and sorts before net/http, goes first. gateway/downstream imports it; an end-to-end test holds that the built program offers extended
// CONNECT. It goes when HTTP/2 no longer runs on net/http.
package xconnect

import "os"

var _ = os.Setenv("GODEBUG", join(os.Getenv("GODEBUG"), "http2xconnect=1"))

func join(before, setting string) string {
	if before == "" {
		return setting
	}
	return before + "," + setting
}
