package cors

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// wildcard stands for everything in the lists of a Config.
const wildcard = "*"

// origin is a parsed "scheme://host[:port]" (RFC 6454 6.1). As a pattern, wild says that the host ends in host: "*.example.com" has
// the host ".example.com", and "*" has "".
type origin struct {
	https bool
	wild  bool
	host  string
	port  uint16
}

// parsePattern opens an entry of AllowOrigins other than "*".
func parsePattern(s string) (origin, error) {
	// Scheme and host of an origin are in lower case (RFC 6454 4); a pattern may be written in any.
	o, rest, ok := cutScheme(strings.ToLower(s))
	if !ok {
		return o, fmt.Errorf("origin %q is not valid: it must begin with http:// or https://, or be \"*\"", s)
	}
	rest, o.port, ok = cutPort(rest, o.port)
	if !ok {
		return o, fmt.Errorf("origin %q is not valid: a port is a number from 1 to 65535", s)
	}
	o.host, o.wild = strings.CutPrefix(rest, wildcard)
	name := o.host
	if o.wild && name != "" {
		name, ok = strings.CutPrefix(name, ".")
	}
	if !ok || !o.wild && name == "" || name != "" && !hostname(name) || o.wild && o.host == "." {
		return o, fmt.Errorf("origin %q is not valid: behind the scheme comes a hostname, one that begins with \"*.\", or \"*\", and perhaps a port", s)
	}
	return o, nil
}

// parseOrigin opens the Origin field of a request. What a browser sends is in lower case; anything else is no origin.
func parseOrigin(s string) (o origin, ok bool) {
	o, rest, ok := cutScheme(s)
	if !ok {
		return o, false
	}
	o.host, o.port, ok = cutPort(rest, o.port)
	if !ok {
		return o, false
	}
	if v6, bracketed := strings.CutPrefix(o.host, "["); bracketed {
		addr, err := netip.ParseAddr(strings.TrimSuffix(v6, "]"))
		return o, err == nil && addr.Is6() && addr.Zone() == "" && strings.HasSuffix(v6, "]")
	}
	return o, hostname(o.host)
}

// cutScheme takes the scheme off and sets its well-known port, which is the origin's unless another is written.
func cutScheme(s string) (o origin, rest string, ok bool) {
	if rest, ok = strings.CutPrefix(s, "https://"); ok {
		return origin{https: true, port: 443}, rest, true
	}
	rest, ok = strings.CutPrefix(s, "http://")
	return origin{port: 80}, rest, ok
}

// cutPort takes a port off the end of an authority.
func cutPort(authority string, wellKnown uint16) (host string, port uint16, ok bool) {
	colon := strings.LastIndexByte(authority, ':')
	if colon < 0 || strings.IndexByte(authority[colon:], ']') >= 0 {
		return authority, wellKnown, true
	}
	n, err := strconv.ParseUint(authority[colon+1:], 10, 16)
	return authority[:colon], uint16(n), err == nil && n != 0
}

// hostname reports whether s is labels of lower case letters, digits, hyphens and underscores.
func hostname(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// matches reports whether the pattern covers o.
func (pattern origin) matches(o origin) bool {
	if pattern.https != o.https || pattern.port != o.port {
		return false
	}
	if !pattern.wild {
		return pattern.host == o.host
	}
	return len(o.host) > len(pattern.host) && strings.HasSuffix(o.host, pattern.host)
}

// reflectable reports whether an Origin of any scheme, or "null", may be written back: one word of visible ASCII.
func reflectable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == ',' || c == '"' {
			return false
		}
	}
	return s != ""
}
