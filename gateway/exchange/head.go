package exchange

import (
	"strings"
)

// Head is a request head.
type Head struct {
	Method string
	// Scheme is "http" or "https": how the client reached the gateway.
	Scheme string
	// Authority is the Host field or :authority as received, port included; "" when an HTTP/1.0 client sent none.
	Authority string
	// Target is the request target as received: path and query in origin form, or "*".
	Target string
	// Protocol is the :protocol of an extended CONNECT (RFC 8441, RFC 9220) or the token of an HTTP/1.1 Upgrade, lower case; ""
	// for an ordinary request.
	Protocol string
	Fields   Fields

	path     string
	query    string
	hasQuery bool
}

// Host returns the authority's host in the one form used to compare names: lower case, without port, without trailing dot, an
// IPv6 address without brackets.
func (h *Head) Host() string { return CanonicalHost(h.Authority) }

// CanonicalHost reduces an authority (host, host:port, [v6]:port) to the host in lower case without trailing dot.
func CanonicalHost(authority string) string {
	host := authority
	if strings.HasPrefix(host, "[") {
		if end := strings.IndexByte(host, ']'); end > 0 {
			return strings.ToLower(host[1:end])
		}
	} else if colon := strings.IndexByte(host, ':'); colon >= 0 && colon == strings.LastIndexByte(host, ':') {
		host = host[:colon]
	}
	host = strings.TrimSuffix(host, ".")
	for i := range len(host) {
		if 'A' <= host[i] && host[i] <= 'Z' {
			return strings.ToLower(host)
		}
	}
	return host
}

// AuthorityPort returns the port part of the authority, "" when there is none.
func (h *Head) AuthorityPort() string {
	colon := strings.LastIndexByte(h.Authority, ':')
	if colon < 0 || strings.IndexByte(h.Authority[colon:], ']') >= 0 {
		return ""
	}
	return h.Authority[colon+1:]
}

// Path returns the normalised path: the one that is matched, authorized and forwarded. It is valid after Normalize.
func (h *Head) Path() string { return h.path }

// Query returns the query byte for byte as received, without the '?'.
func (h *Head) Query() string { return h.query }

// SetPath replaces the path; path must be absolute and already normalised. The query stays.
func (h *Head) SetPath(path string) { h.path = path }

// ForwardTarget returns what goes to the upstream: the normalised (perhaps rewritten) path and the query as received.
func (h *Head) ForwardTarget() string {
	if !h.hasQuery {
		return h.path
	}
	return h.path + "?" + h.query
}

// Normalize splits Target into path and query and gives the path its one normal form. It returns a *Fault of kind BadPath when
// the path has no one safe meaning. See normalizePath for the treatment of each hard case.
func (h *Head) Normalize() error {
	path, query, found := strings.Cut(h.Target, "?")
	h.query, h.hasQuery = query, found
	if path == "*" && h.Method == "OPTIONS" {
		h.path = path
		return nil
	}
	if i := strings.IndexFunc(query, func(r rune) bool { return r <= ' ' || r == '#' || r == 0x7f }); i >= 0 {
		return NewFault(BadPath, errPath("the query holds a space, a control character or '#'"))
	}
	normal, err := normalizePath(path)
	if err != nil {
		return NewFault(BadPath, err)
	}
	h.path = normal
	return nil
}
