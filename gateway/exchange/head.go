package exchange

import (
	"net/netip"
	"strconv"
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
			return lowerASCII(host[1:end])
		}
	} else if colon := portColon(host); colon >= 0 {
		host = host[:colon]
	}
	return lowerASCII(strings.TrimSuffix(host, "."))
}

// lowerASCII leaves all but A to Z alone: strings.ToLower would make a host in another script equal to one in ASCII (U+212A, the
// Kelvin sign, becomes 'k').
func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			lower := []byte(s)
			for j := i; j < len(lower); j++ {
				if 'A' <= lower[j] && lower[j] <= 'Z' {
					lower[j] |= 0x20
				}
			}
			return string(lower)
		}
	}
	return s
}

// AuthorityPort returns the port part of the authority, "" when there is none.
func (h *Head) AuthorityPort() string {
	if colon := portColon(h.Authority); colon >= 0 {
		return h.Authority[colon+1:]
	}
	return ""
}

// portColon returns where the colon before the port stands, or -1. An IPv6 address without brackets, which no URI allows, has no
// port.
func portColon(authority string) int {
	colon := strings.LastIndexByte(authority, ':')
	if bracket := strings.LastIndexByte(authority, ']'); bracket >= 0 {
		if colon < bracket {
			return -1
		}
		return colon
	}
	if colon != strings.IndexByte(authority, ':') {
		return -1
	}
	return colon
}

// Path returns the normalised path: the one that is matched, authorized and forwarded. It is valid after Normalize.
func (h *Head) Path() string { return h.path }

// Query returns the query byte for byte as received, without the '?'.
func (h *Head) Query() string { return h.query }

// HasQuery reports whether the target has a '?', be the query behind it empty or not.
func (h *Head) HasQuery() bool { return h.hasQuery }

// SetPath replaces the path; path must be absolute and already normalised. The query stays.
func (h *Head) SetPath(path string) { h.path = path }

// ForwardTarget returns what goes to the upstream: the normalised (perhaps rewritten) path and the query as received.
func (h *Head) ForwardTarget() string {
	if !h.hasQuery {
		return h.path
	}
	return h.path + "?" + h.query
}

// AppendTarget appends ForwardTarget to dst.
func (h *Head) AppendTarget(dst []byte) []byte {
	dst = append(dst, h.path...)
	if h.hasQuery {
		dst = append(append(dst, '?'), h.query...)
	}
	return dst
}

// Normalize splits Target into path and query and gives the path its one normal form. It returns a *Fault of kind BadPath when
// the path has no one safe meaning; Path is "" then. See NormalizePath for the treatment of each hard case.
func (h *Head) Normalize() error {
	path, query, found := strings.Cut(h.Target, "?")
	h.path, h.query, h.hasQuery = "", query, found
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c == '#' || c == 0x7f {
			return NewFault(BadPath, errPath("the query holds a space, a control character or '#'"))
		}
	}
	// The asterisk-form has neither path nor query (RFC 9112 3.2.4).
	if h.Target == "*" && h.Method == "OPTIONS" {
		h.path = path
		return nil
	}
	normal, err := NormalizePath(path)
	if err != nil {
		return NewFault(BadPath, err)
	}
	h.path = normal
	return nil
}

// ValidAuthority reports whether an authority is a host with an optional port and nothing else: no userinfo, no space, a numeric
// port (RFC 9110 7.2). The empty authority of an HTTP/1.0 request is valid.
func ValidAuthority(authority string) bool {
	host, port := authority, ""
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return false
		}
		// A zone names an interface of the client's, and brackets around IPv4 are a second spelling of one host.
		if addr, err := netip.ParseAddr(authority[1:end]); err != nil || !addr.Is6() || addr.Zone() != "" {
			return false
		}
		host, port = "", authority[end+1:]
	} else if colon := strings.IndexByte(authority, ':'); colon >= 0 {
		host, port = authority[:colon], authority[colon:]
		if host == "" {
			return false
		}
	}
	for i := range len(host) {
		if c := host[i]; !unreserved(c) {
			return false
		}
	}
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port[1:], 10, 16)
	return port[0] == ':' && err == nil && n > 0
}

// Clone returns a head that shares nothing with the exchange's buffer.
func (h *Head) Clone() Head {
	c := *h
	for _, s := range []*string{&c.Method, &c.Scheme, &c.Authority, &c.Target, &c.Protocol, &c.path, &c.query} {
		*s = strings.Clone(*s)
	}
	c.Fields = h.Fields.Copy()
	return c
}
