package exchange

import (
	"encoding/binary"
	"unsafe"
)

// ID numbers a field name that the gateway itself looks at, so that comparing names is comparing integers.
type ID uint8

// The well-known field names. Unknown stands for every other name.
const (
	Unknown ID = iota
	AcceptEncoding
	AccessControlAllowCredentials
	AccessControlAllowHeaders
	AccessControlAllowMethods
	AccessControlAllowOrigin
	AccessControlExposeHeaders
	AccessControlMaxAge
	AccessControlRequestHeaders
	AccessControlRequestMethod
	AltSvc
	Authorization
	B3
	Connection
	ContentLength
	ContentType
	Cookie
	Date
	Expect
	Forwarded
	Host
	HTTP2Settings
	KeepAlive
	Location
	Origin
	ProxyAuthorization
	ProxyConnection
	Server
	TE
	Traceparent
	Tracestate
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	Vary
	Via
	XB3Flags
	XB3ParentSpanID
	XB3Sampled
	XB3SpanID
	XB3TraceID
	XForwardedClientCert
	XForwardedFor
	XForwardedHost
	XForwardedPort
	XForwardedPrefix
	XForwardedProto
	XRealIP
	XRequestID
	idCount
)

// names is indexed by ID; lower case.
var names = [idCount]string{
	AcceptEncoding:                "accept-encoding",
	AccessControlAllowCredentials: "access-control-allow-credentials",
	AccessControlAllowHeaders:     "access-control-allow-headers",
	AccessControlAllowMethods:     "access-control-allow-methods",
	AccessControlAllowOrigin:      "access-control-allow-origin",
	AccessControlExposeHeaders:    "access-control-expose-headers",
	AccessControlMaxAge:           "access-control-max-age",
	AccessControlRequestHeaders:   "access-control-request-headers",
	AccessControlRequestMethod:    "access-control-request-method",
	AltSvc:                        "alt-svc",
	Authorization:                 "authorization",
	B3:                            "b3",
	Connection:                    "connection",
	ContentLength:                 "content-length",
	ContentType:                   "content-type",
	Cookie:                        "cookie",
	Date:                          "date",
	Expect:                        "expect",
	Forwarded:                     "forwarded",
	Host:                          "host",
	HTTP2Settings:                 "http2-settings",
	KeepAlive:                     "keep-alive",
	Location:                      "location",
	Origin:                        "origin",
	ProxyAuthorization:            "proxy-authorization",
	ProxyConnection:               "proxy-connection",
	Server:                        "server",
	TE:                            "te",
	Traceparent:                   "traceparent",
	Tracestate:                    "tracestate",
	Trailer:                       "trailer",
	TransferEncoding:              "transfer-encoding",
	Upgrade:                       "upgrade",
	UserAgent:                     "user-agent",
	Vary:                          "vary",
	Via:                           "via",
	XB3Flags:                      "x-b3-flags",
	XB3ParentSpanID:               "x-b3-parentspanid",
	XB3Sampled:                    "x-b3-sampled",
	XB3SpanID:                     "x-b3-spanid",
	XB3TraceID:                    "x-b3-traceid",
	XForwardedClientCert:          "x-forwarded-client-cert",
	XForwardedFor:                 "x-forwarded-for",
	XForwardedHost:                "x-forwarded-host",
	XForwardedPort:                "x-forwarded-port",
	XForwardedPrefix:              "x-forwarded-prefix",
	XForwardedProto:               "x-forwarded-proto",
	XRealIP:                       "x-real-ip",
	XRequestID:                    "x-request-id",
}

const longestName = 32

// index finds the candidates for a name by its length and three of its bytes: chains of IDs that begin at first[hashOf(name)] and go on
// at next[id]; Unknown ends them. Nearly all are one long. It is never written after start.
var index = func() (table struct {
	first [256]ID
	next  [idCount]ID
}) {
	for id := Unknown + 1; id < idCount; id++ {
		at := hashOf(names[id])
		table.next[id], table.first[at] = table.first[at], id
	}
	return table
}()

// hashOf ignores case. name is not empty.
func hashOf(name string) uint8 {
	n := len(name)
	return (name[0] | 0x20) + (name[n-1] | 0x20) + 31*(name[n/2]|0x20) + uint8(n)
}

// IDOf returns the number of a well-known field name in any case, or Unknown.
func IDOf(name string) ID {
	if len(name) == 0 || len(name) > longestName {
		return Unknown
	}
	id := index.first[hashOf(name)]
	for id != Unknown && !foldsTo(name, names[id]) {
		id = index.next[id]
	}
	return id
}

// foldsTo reports whether name is the well-known one in any case. Of the bytes in known only letters have bit 0x40, half of which is the
// bit that makes a letter lower case. Eight bytes are compared together; the last eight may overlap the ones before.
func foldsTo(name, known string) bool {
	n := len(known)
	if len(name) != n {
		return false
	}
	if n < 8 {
		for i := range n {
			if name[i]|known[i]&0x40>>1 != known[i] {
				return false
			}
		}
		return true
	}
	for i := 0; ; i = min(i+8, n-8) {
		want := word(known, i)
		if word(name, i)|want&0x4040404040404040>>1 != want {
			return false
		}
		if i == n-8 {
			return true
		}
	}
}

// word returns the eight bytes of s from i on.
func word(s string, i int) uint64 {
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	return binary.LittleEndian.Uint64(b[i:])
}

// String returns the name in lower case, "" for Unknown.
func (id ID) String() string {
	if id < idCount {
		return names[id]
	}
	return ""
}

// HopByHop reports whether the field describes one connection and is never forwarded (RFC 9110 7.6.1), Upgrade and TE included:
// who forwards an upgrade or "te: trailers" writes it anew.
func (id ID) HopByHop() bool {
	switch id {
	case Connection, KeepAlive, ProxyConnection, ProxyAuthorization, TE, Trailer, TransferEncoding, Upgrade, HTTP2Settings:
		return true
	}
	return false
}
