// Package redirect answers a request with another place to go: Gateway API's RequestRedirect.
package redirect

import "gatehouse.dev/gatehouse/filters/pathmod"

// Config is an HTTPRequestRedirectFilter.
type Config struct {
	// Scheme is "http", "https" or "", which keeps the request's.
	Scheme string `json:"scheme,omitempty"`
	// Hostname "" keeps the request's host.
	Hostname string `json:"hostname,omitempty"`
	// Path nil keeps the request's path.
	Path *pathmod.Config `json:"path,omitempty"`
	// Port 0 is derived: the well-known port of Scheme or, where Scheme is "", the port of the listener that the request came to.
	Port uint16 `json:"port,omitempty"`
	// StatusCode is 301, 302, 303, 307 or 308; 0 means 302.
	StatusCode int `json:"statusCode,omitempty"`
}
