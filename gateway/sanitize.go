package gateway

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// What a client says about who it is and which way it came is removed before anything reads it, and written anew. Origins differ in
// which spellings they take for one name (CGI folds '-', '_' and '.'), so that all of them go.

// identityNames are the fields that carry forwarding or identity; those with a trailing '-' are prefixes.
var identityNames = []string{
	"forwarded", "x-forwarded-", "x-envoy-", "x-real-ip", "x-request-id", "x-original-url", "x-original-host", "x-rewrite-url",
	"x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
}

// carriesIdentity reports whether a field name, in any spelling, is one of identityNames.
func carriesIdentity(name string) bool {
	if len(name) < len("x-envoy-") { // the shortest
		return false
	}
	switch name[0] | 0x20 {
	case 'f', 'x', 't', 'c':
	default:
		return false
	}
	for _, known := range identityNames {
		if foldsTo(name, known) {
			return true
		}
	}
	return false
}

// foldsTo compares ignoring case and taking '_' and '.' for '-'; a known name that ends in '-' is a prefix.
func foldsTo(name, known string) bool {
	if len(name) < len(known) || len(name) > len(known) && !strings.HasSuffix(known, "-") {
		return false
	}
	for i := range len(known) {
		c := name[i]
		switch {
		case c == '_' || c == '.':
			c = '-'
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		}
		if c != known[i] {
			return false
		}
	}
	return true
}

// sanitizeRequest removes what describes the client's connection or claims an identity. "TE: trailers" stays, as the one coding that
// matters beyond a hop (gRPC), and Trailer with the names that may be forwarded.
func sanitizeRequest(head *exchange.Head) {
	trailers := head.Fields.HasToken(exchange.TE, "trailers")
	announced := ""
	if list := head.Fields.Get(exchange.Trailer); list != "" {
		announced = allowedTrailerNames(list)
	}
	head.Fields = withoutHop(head.Fields)
	head.Fields = head.Fields.Filter(func(f *exchange.Field) bool {
		return f.ID != exchange.Host && !carriesIdentity(f.Name)
	})
	if trailers {
		head.Fields.AddID(exchange.TE, "TE", "trailers")
	}
	if announced != "" {
		head.Fields.Add("Trailer", announced)
	}
}

// withoutHop removes hop-by-hop fields and those that Connection names (RFC 9110 7.6.1). Connection cannot name away the fields
// that say what the message is.
func withoutHop(fields exchange.Fields) exchange.Fields {
	named := ""
	for i := range fields {
		if fields[i].ID == exchange.Connection {
			named += "," + fields[i].Value
		}
	}
	return fields.Filter(func(f *exchange.Field) bool {
		return !f.ID.HopByHop() && (named == "" || endToEnd(f.ID) || !listNames(named, f.Name))
	})
}

func endToEnd(id exchange.ID) bool {
	switch id {
	case exchange.Host, exchange.ContentLength, exchange.ContentType, exchange.Authorization, exchange.Cookie:
		return true
	}
	return false
}

func listNames(list, name string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(part, " \t"), name) {
			return true
		}
	}
	return false
}

// allowedTrailer reports whether a field may stand in a trailer: nothing that frames, routes or identifies (RFC 9110 6.5.1).
func allowedTrailer(name string) bool {
	id := exchange.IDOf(name)
	switch id {
	case exchange.Host, exchange.ContentLength, exchange.ContentType, exchange.Authorization, exchange.Cookie, exchange.Expect,
		exchange.Origin, exchange.Traceparent, exchange.Tracestate, exchange.B3, exchange.Location, exchange.AltSvc:
		return false
	}
	return !id.HopByHop() && !carriesIdentity(name) && !strings.HasPrefix(name, ":")
}

func allowedTrailerNames(list string) string {
	var kept []string
	for part := range strings.SplitSeq(list, ",") {
		if name := strings.Trim(part, " \t"); isToken(name) && allowedTrailer(name) {
			kept = append(kept, name)
		}
	}
	return strings.Join(kept, ", ")
}

// isToken holds a name that a client announces to the grammar (RFC 9110 5.6.2).
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		alphanumeric := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}

func allowedTrailers(fields exchange.Fields) exchange.Fields {
	return fields.Filter(func(f *exchange.Field) bool { return allowedTrailer(f.Name) })
}

// forward writes the forwarding fields anew.
func forward(x *exchange.Exchange, authority string) {
	fields := &x.Req.Fields
	fields.AddID(exchange.XForwardedFor, "X-Forwarded-For", x.Peer.RemoteIP)
	fields.AddID(exchange.XForwardedProto, "X-Forwarded-Proto", x.Req.Scheme)
	if authority != "" {
		fields.AddID(exchange.XForwardedHost, "X-Forwarded-Host", authority)
	}
	fields.AddID(exchange.XRequestID, "X-Request-Id", requestID(x))
}

// requestID returns 128 random bits in hex. It names a request and grants nothing.
func requestID(x *exchange.Exchange) string {
	var id [16]byte
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	var text [32]byte
	hex.Encode(text[:], id[:])
	return x.Keep(text[:])
}

// sanitizeResponse removes what describes the endpoint's connection. Alt-Svc is about the endpoint's own address.
func sanitizeResponse(fields exchange.Fields) exchange.Fields {
	fields = withoutHop(fields)
	fields.DelID(exchange.AltSvc)
	return fields
}
