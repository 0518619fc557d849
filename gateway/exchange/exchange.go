// Package exchange is the model of one proxied request and its response, the same for HTTP/1.1, HTTP/2 and HTTP/3.
//
// A downstream server fills Peer, Req and ReqBody and hands the Exchange to a Handler together with a Responder; the Handler
// (the Engine) fills Resp, RespBody and what telemetry records. Strings in Head and Fields may be views into a buffer that the
// connection owns: they are valid until ServeExchange returns. Whoever keeps one longer clones it.
//
// The package knows nothing of sockets, codecs, routes or filters, and does not use net/http: codecs of our own and adapters
// to other libraries fill the same types.
package exchange

import (
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"
)

// Proto is what a client connection speaks: the HTTP version of one side of an exchange, or what a Flow's bytes are carried by.
type Proto uint8

// The protocols that an exchange can arrive or leave by, and then those of a Flow.
const (
	ProtoUnknown Proto = iota
	HTTP10
	HTTP11
	HTTP2
	HTTP3
	TLS
	TCP
	UDP
)

// Protos is how many there are.
const Protos = int(UDP) + 1

// String returns the protocol as in an access log, "HTTP/1.1".
func (p Proto) String() string {
	return [...]string{"unknown", "HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3", "TLS", "TCP", "UDP"}[p]
}

// TLSInfo is what the TLS handshake of the client connection established.
type TLSInfo struct {
	// ServerName is the SNI: lower case, without trailing dot; "" when the client sent none.
	ServerName string
	// Version and CipherSuite are the TLS code points (tls.VersionTLS13, ...).
	Version     uint16
	CipherSuite uint16
	// PeerCertificates are the client's certificates, DER, leaf first. The client has their keys, and that is all they say by themselves:
	// only when Verified do they tell who it is.
	PeerCertificates [][]byte

	// verdict is twice the number of the rules that PeerCertificates were last held against, plus 1 when they passed. It is the only part
	// that changes, as the rules do.
	verdict atomic.Uint64
	// turnedAway says that a request was refused because of them.
	turnedAway atomic.Bool
}

// Verified reports whether the client's certificate passed the rules of the listener that the last request on the connection went to.
func (t *TLSInfo) Verified() bool { return t.verdict.Load()&1 != 0 }

// Verdict returns what SetVerdict was told last, 0 and false at first.
func (t *TLSInfo) Verdict() (rules uint64, passed bool) {
	v := t.verdict.Load()
	return v >> 1, v&1 != 0
}

// TurnAway notes that the client must come again with another connection, because its certificate no longer passes. A server ends the
// connection after the answer: a client that does not know what 421 means would otherwise stay on it for good.
func (t *TLSInfo) TurnAway() { t.turnedAway.Store(true) }

// TurnedAway reports whether TurnAway was called. It may be called on nil.
func (t *TLSInfo) TurnedAway() bool { return t != nil && t.turnedAway.Load() }

// SetVerdict notes whether PeerCertificates passed the rules of that number, which is not 0 where there are rules. It may be called from any
// goroutine.
func (t *TLSInfo) SetVerdict(rules uint64, passed bool) {
	v := rules << 1
	if passed {
		v |= 1
	}
	t.verdict.Store(v)
}

// Peer describes the client connection that an exchange came by.
type Peer struct {
	// Bind names the socket: the key of the bind in the snapshot, "ADDRESS:PORT".
	Bind   string
	Remote netip.AddrPort
	// RemoteIP is Remote's address as text, made once for each connection.
	RemoteIP string
	Local    netip.AddrPort
	Proto    Proto
	// TLS is nil for a plaintext connection.
	TLS *TLSInfo
}

// Response is a response head.
type Response struct {
	Status int
	Fields Fields
}

// RouteRef names the route and rule that an exchange took. One is made per rule when a snapshot is compiled and shared by all
// exchanges; it is never written after.
type RouteRef struct {
	// Route is "Kind/namespace/name".
	Route string
	// Rule is the rule's name, or its index in the route.
	Rule string
}

// Exchange is one request and its response. It belongs to the goroutine that serves it. A server uses one for many requests, with
// Reset in between.
type Exchange struct {
	Peer    Peer
	Req     Head
	ReqBody Body

	// Life ends when the client goes away. It is the context that filters get.
	Life *Life

	// Resp and RespBody are what the client gets. A filter that answers by itself fills them; RespBody nil means NoBody.
	Resp     Response
	RespBody Body

	// Start is when the request's first byte was seen.
	Start time.Time

	// What the exchange became; telemetry reads it last.

	// Route is nil until a rule matched.
	Route *RouteRef
	// Cluster and Endpoint are where the last attempt went; "" when none was made.
	Cluster  string
	Endpoint string
	// Attempts counts the tries made upstream, retries included.
	Attempts int
	// Fault is why the exchange failed, nil when it did not.
	Fault *Fault
	// BytesIn and BytesOut count body bytes from and to the client.
	BytesIn  int64
	BytesOut int64
	// TraceID is the 32 hex digits of the trace the exchange belongs to, "" when there is none.
	TraceID string

	// Caller sends requests of a filter's own; nil in an exchange that no Engine serves.
	Caller Caller

	// Mirrors are the clusters that get a copy of the request; a mirror filter appends to it.
	Mirrors []string

	// Slots hold per-exchange filter state, one place per filters.Slot, numbered when the chain is compiled.
	Slots []any

	kept []byte
}

// keptSize is room for the values that the gateway itself adds to a request: addresses, identifiers, trace context.
const keptSize = 512

// Keep copies b into memory that the exchange owns and returns it as a view, valid until the exchange ends.
func (x *Exchange) Keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if cap(x.kept)-len(x.kept) < len(b) {
		// What was kept so far stays where it is: views look into it.
		x.kept = make([]byte, 0, max(keptSize, 2*len(b)))
	}
	from := len(x.kept)
	x.kept = append(x.kept, b...)
	return unsafe.String(&x.kept[from], len(b))
}

// Reset makes the exchange ready for the next request of the same client: everything but Peer is as new, with the memory of before.
// Views into the exchange, and its Life, must not be used any more.
func (x *Exchange) Reset() {
	Poison(x.kept[:cap(x.kept)])
	kept, peer, life := x.kept[:0], x.Peer, x.Life.Fresh()
	request, response, slots, mirrors := x.Req.Fields, x.Resp.Fields, x.Slots, x.Mirrors
	clear(request[:cap(request)])
	clear(response[:cap(response)])
	clear(slots[:cap(slots)])
	clear(mirrors[:cap(mirrors)])
	*x = Exchange{Peer: peer, Life: life, ReqBody: NoBody, Slots: slots[:0], Mirrors: mirrors[:0], kept: kept}
	x.Req.Fields, x.Resp.Fields = request[:0], response[:0]
}

// Responder is the writing half of the client's side of one exchange. Its methods are called from one goroutine, in the order
// Inform*, Respond, Write*, Finish, or Respond and then Tunnel.
type Responder interface {
	// Inform sends an interim response: 103 Early Hints and the like. 101 is not interim; it goes to Respond.
	Inform(status int, fields Fields) error
	// Respond sends the final response head. length is the body's length, or -1 when unknown. Hop-by-hop fields are already
	// removed; the Responder adds its protocol's framing.
	Respond(resp *Response, length int64) error
	// Write sends body bytes. They may be held back until Flush or Finish.
	Write(p []byte) (int, error)
	// Flush sends what was held back.
	Flush() error
	// Finish ends the response with these trailers, if any.
	Finish(trailers Fields) error
	// Tunnel turns the exchange into a raw stream, after Respond with 101 (HTTP/1.1 Upgrade) or a 2xx (extended CONNECT).
	// The request body must not be read after.
	Tunnel() (Stream, error)
	// Abort ends a response that cannot be completed so that the client notices: a reset stream, a closed connection.
	Abort()
}

// Caller sends requests of the gateway's own to a cluster of the configuration that the exchange began with, by the same balancing, connections,
// TLS and time limits as any other, whether the exchange's own body has been read or not.
type Caller interface {
	// Call sends one request and reads the whole answer. It returns when the answer is there, at the latest after Call.Timeout or with
	// the end of the exchange. An endpoint that certainly did not start on the request is followed by another one.
	Call(c *Call) *Fault
}

// Call is one request of the gateway's own with its answer.
type Call struct {
	// Cluster names where it goes. One that the configuration does not have is a Fault of kind InvalidBackend.
	Cluster string
	// Head was normalised; its fields hold nothing hop-by-hop but "TE: trailers".
	Head *Head
	Body []byte
	// Timeout bounds all attempts together; 0 means DefaultCallTimeout.
	Timeout time.Duration
	// MaxAnswer bounds the answer's body; 0 means DefaultMaxAnswer. A longer one is a Fault of kind UpstreamProtocol.
	MaxAnswer int

	// Answer, AnswerBody and Trailers are the answer. They are the caller's own, no views.
	Answer     Response
	AnswerBody []byte
	Trailers   Fields
}

// The defaults of a Call.
const (
	DefaultCallTimeout = 5 * time.Second
	DefaultMaxAnswer   = 1 << 20
)

// Handler serves exchanges. ServeExchange returns when the exchange is over and nothing of the Handler's uses it, its views, its body or
// the Responder any more.
type Handler interface {
	ServeExchange(x *Exchange, w Responder)
}
