package exchange

import "strings"

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

// byLength groups the well-known names by length, which leaves at most a handful to compare. It is never written after start.
var byLength = func() (index [longestName + 1][]ID) {
	for id := Unknown + 1; id < idCount; id++ {
		n := len(names[id])
		index[n] = append(index[n], id)
	}
	return index
}()

// IDOf returns the number of a well-known field name in any case, or Unknown.
func IDOf(name string) ID {
	if len(name) > longestName {
		return Unknown
	}
	for _, id := range byLength[len(name)] {
		// The last byte tells most names of one length apart before the whole is compared.
		known := names[id]
		if known[len(known)-1] == name[len(name)-1]|0x20 && strings.EqualFold(known, name) {
			return id
		}
	}
	return Unknown
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
