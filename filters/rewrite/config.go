// Package rewrite changes host and path of a request on its way to the backend: Gateway API's URLRewrite.
package rewrite

import "gatehouse.dev/gatehouse/filters/pathmod"

// Config is an HTTPURLRewriteFilter.
type Config struct {
	// Hostname replaces the Host field; "" keeps it.
	Hostname string `json:"hostname,omitempty"`
	// Path nil keeps the path.
	Path *pathmod.Config `json:"path,omitempty"`
}
