package redirect

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/internal/check"
	"gatehouse.dev/gatehouse/filters/pathmod"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

var errNoHost = errors.New("the request names no host that a redirect could lead to")

// filter is a compiled Config. The Location it writes is always a whole URL, "scheme://host[:port]path[?query]", with a path that
// begins with exactly one slash: a client cannot read part of the path as a host ("//evil", "/\evil").
type filter struct {
	scheme   string
	hostname string
	path     *pathmod.Modifier
	port     uint16
	status   int
}

func compile(c Config) (*filter, error) {
	f := &filter{scheme: c.Scheme, hostname: c.Hostname, port: c.Port, status: c.StatusCode}
	switch c.Scheme {
	case "", "http", "https":
	default:
		return nil, fmt.Errorf("scheme %q is not supported: use http or https", c.Scheme)
	}
	if c.Hostname != "" {
		if err := check.Hostname(c.Hostname); err != nil {
			return nil, err
		}
	}
	switch c.StatusCode {
	case 0:
		f.status = 302
	case 301, 302, 303, 307, 308:
	default:
		return nil, fmt.Errorf("statusCode %d is not supported: use 301, 302, 303, 307 or 308", c.StatusCode)
	}
	path, err := pathmod.Compile(c.Path)
	if err != nil {
		return nil, err
	}
	f.path = path
	return f, nil
}

// OnRequest answers the request.
func (f *filter) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	location, err := f.location(x)
	if err != nil {
		return filters.Continue, exchange.NewFault(exchange.BadRequest, err)
	}
	x.Resp = exchange.Response{
		Status: f.status,
		Fields: exchange.Fields{{Name: "Location", Value: location, ID: exchange.Location}},
	}
	x.RespBody = exchange.NoBody
	return filters.Reply, nil
}

// OnResponse does nothing.
func (*filter) OnResponse(*exchange.Exchange) {}

func (f *filter) location(x *exchange.Exchange) (string, error) {
	scheme, host, path := f.scheme, f.hostname, f.path.Apply(x.Req.Path())
	if scheme == "" {
		scheme = x.Req.Scheme
	}
	if host == "" {
		var ok bool
		if host, ok = requestHost(x.Req.Authority); !ok {
			return "", errNoHost
		}
	}
	if path == "*" { // OPTIONS *: the server as a whole has no path
		path = ""
	}
	const portAndMark = len(":65535?")
	var b strings.Builder
	b.Grow(len(scheme) + len("://") + len(host) + portAndMark + len(path) + len(x.Req.Query()))
	b.WriteString(scheme)
	b.WriteString("://")
	b.WriteString(host)
	if port := f.locationPort(x); port != 0 && port != wellKnown(scheme) {
		var digits [5]byte
		b.WriteByte(':')
		b.Write(strconv.AppendUint(digits[:0], uint64(port), 10))
	}
	b.WriteString(path)
	if x.Req.HasQuery() {
		b.WriteByte('?')
		b.WriteString(x.Req.Query())
	}
	return b.String(), nil
}

// locationPort follows HTTPRequestRedirectFilter.port: the one given, else the well-known one of a scheme that was given, else the
// listener's.
func (f *filter) locationPort(x *exchange.Exchange) uint16 {
	switch {
	case f.port != 0:
		return f.port
	case f.scheme != "":
		return wellKnown(f.scheme)
	}
	return x.Peer.Local.Port()
}

func wellKnown(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

// requestHost returns the host of the authority as it may stand in a URL, lower case and without port. A client chooses its Host
// field, so only plain names and addresses pass: no userinfo, no escapes, nothing that could end the host.
func requestHost(authority string) (host string, ok bool) {
	host = exchange.CanonicalHost(authority)
	if host == "" || !exchange.ValidAuthority(authority) {
		return "", false
	}
	if authority[0] == '[' {
		host = "[" + host + "]"
	}
	return host, true
}
