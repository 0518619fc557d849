// Package config is the complete desired state of a proxy as plain data: what a translator makes out of Kubernetes objects and
// what a proxy compiles into its tables. It knows nothing of Kubernetes, sockets or filters; a filter's settings travel as a
// Policy that only the filter's own package opens.
//
// A Config is immutable once published. The same objects give the same Config, in the same order. Listeners, routes and clusters
// are pointers so that what did not change can be recognised by identity and need not be compiled again.
package config

import (
	"net/netip"
	"strconv"
	"time"

	"gatehouse.dev/gatehouse/routing"
)

// Origin names the object that an item of the configuration came from.
type Origin struct {
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	Generation int64  `json:"generation,omitempty"`
	// Rule is the rule or section within the object, "" for the whole.
	Rule string `json:"rule,omitempty"`
	// File and Line say where the object stands, in standalone mode.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// String returns "Kind/namespace/name".
func (o Origin) String() string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return o.Kind + "/" + o.Namespace + "/" + o.Name
}

// Config is the whole desired state, sorted by name at every level.
type Config struct {
	Listeners    []*Listener    `json:"listeners,omitempty"`
	Clusters     []*Cluster     `json:"clusters,omitempty"`
	Certificates []*Certificate `json:"certificates,omitempty"`
}

// Protocol is what a listener speaks.
type Protocol string

// The protocols of a listener.
const (
	HTTP  Protocol = "HTTP"
	HTTPS Protocol = "HTTPS"
	// TLS is any protocol over TLS, chosen by server name: terminated when Listener.TLS is set, passed through unopened otherwise.
	TLS Protocol = "TLS"
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// Listener is one Gateway API listener: a hostname on a port, with the routes attached to it. Listeners that share address and
// port share a socket.
type Listener struct {
	// Origin is the Gateway or ListenerSet, with the listener's name as Rule.
	Origin Origin `json:"origin"`
	// Gateway is "namespace/name" of the Gateway that the listener belongs to.
	Gateway string `json:"gateway"`
	// Name is unique: "namespace/gateway/listener", or "namespace/gateway/namespace/set/listener" for one of a ListenerSet.
	Name string `json:"name"`
	// Addresses to bind; empty means all interfaces.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Port      uint16       `json:"port"`
	Protocol  Protocol     `json:"protocol"`
	// Hostname is exact, "*.suffix" or "" for every host; lower case.
	Hostname string `json:"hostname,omitempty"`
	// TLS is set when Protocol is HTTPS, and when it is TLS that the gateway terminates.
	TLS *ListenerTLS `json:"tls,omitempty"`
	// Filters run on each HTTP request before a route is chosen.
	Filters []Policy `json:"filters,omitempty"`
	// Tracing overrides how the listener's exchanges are traced; nil is the proxy's own setting.
	Tracing *Tracing `json:"tracing,omitempty"`
	// Routes of an HTTP or HTTPS listener.
	Routes []*Route `json:"routes,omitempty"`
	// Streams are the routes of a TLS, TCP or UDP listener, in order of precedence. On TCP and UDP the first takes everything.
	Streams []*StreamRoute `json:"streams,omitempty"`
}

// ListenerTLS is how a listener terminates TLS.
type ListenerTLS struct {
	// Certificates are the names of Config.Certificates to choose from, in order of preference.
	Certificates []string `json:"certificates"`
	// ClientValidation is nil when clients are asked for no certificate.
	ClientValidation *ClientValidation `json:"clientValidation,omitempty"`
}

// ClientValidation is how the certificates of clients are verified (Gateway API: FrontendTLSValidation).
type ClientValidation struct {
	// CAs is PEM.
	CAs string `json:"cas"`
	// AllowInsecureFallback lets clients in whose certificate is missing or does not verify.
	AllowInsecureFallback bool `json:"allowInsecureFallback,omitempty"`
}

// Tracing is how exchanges are traced (Gateway API: TracingConfig).
type Tracing struct {
	Origin Origin `json:"origin"`
	// Disabled makes no spans. The trace context of requests passes through.
	Disabled bool `json:"disabled,omitempty"`
	// Cluster takes the spans: OTLP/gRPC when it speaks HTTP/2, OTLP/HTTP otherwise. "" sends them where the proxy's own go.
	Cluster string `json:"cluster,omitempty"`
	// Headers go with each delivery.
	Headers []Header `json:"headers,omitempty"`
	// Sampling of exchanges that no caller decided on; nil is the proxy's own setting.
	Sampling *Fraction `json:"sampling,omitempty"`
	// IgnoreParent decides by Sampling even where the caller has decided.
	IgnoreParent bool `json:"ignoreParent,omitempty"`
	// ParentSampling is how many of those that the caller sampled are sampled; nil is all.
	ParentSampling *Fraction `json:"parentSampling,omitempty"`
	// ServiceName is the resource attribute service.name; "" is the proxy's own.
	ServiceName string `json:"serviceName,omitempty"`
	// SpanName names the spans; "" is the default.
	SpanName string `json:"spanName,omitempty"`
	// Attributes are added to each span.
	Attributes []TraceAttribute `json:"attributes,omitempty"`
}

// Header is a header field to send.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Fraction is Numerator out of Denominator, which is not 0.
type Fraction struct {
	Numerator   uint32 `json:"numerator"`
	Denominator uint32 `json:"denominator"`
}

// TraceAttribute is a span attribute: of its three sources one is set.
type TraceAttribute struct {
	Name    string `json:"name"`
	Literal string `json:"literal,omitempty"`
	// Header is a request header field whose value it gets.
	Header string `json:"header,omitempty"`
	// Attribute is a span attribute of the gateway's own whose value it gets.
	Attribute string `json:"attribute,omitempty"`
}

// Certificate is a certificate chain with its private key.
type Certificate struct {
	Origin Origin `json:"origin"`
	// Name is unique: "namespace/secret".
	Name string `json:"name"`
	// Chain is PEM, leaf first.
	Chain string `json:"chain"`
	// Key is PEM.
	Key Secret `json:"key"`
}

// Secret is bytes that no log, dump or error text shows.
type Secret []byte

// String returns "[redacted]".
func (Secret) String() string { return "[redacted]" }

// GoString returns "[redacted]".
func (Secret) GoString() string { return "[redacted]" }

// MarshalText returns "[redacted]".
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Route is one route object.
type Route struct {
	Origin Origin `json:"origin"`
	// Created orders routes of equal precedence: the oldest first, then by namespace and name.
	Created time.Time `json:"created,omitzero"`
	// Hostnames as the route has them, lower case; empty means every host of the listener. What a listener serves of them is
	// routing.Intersect with the listener's own.
	Hostnames []string `json:"hostnames,omitempty"`
	Rules     []*Rule  `json:"rules"`
}

// StreamRoute is one TLSRoute, TCPRoute or UDPRoute: where connections, or the datagrams of a client, go.
type StreamRoute struct {
	Origin  Origin    `json:"origin"`
	Created time.Time `json:"created,omitzero"`
	// Hostnames are server names, lower case; empty means every name of the listener. Of a TLSRoute only.
	Hostnames []string `json:"hostnames,omitempty"`
	// Rule is the rule's name, or its index in the object.
	Rule string `json:"rule"`
	// Backends share the connections by weight; they have no filters.
	Backends []Backend `json:"backends,omitempty"`
}

// Rule is one rule of a route.
type Rule struct {
	// Name is the rule's name, or its index in the object.
	Name string `json:"name"`
	// Matches are alternatives; empty means the prefix "/".
	Matches []routing.Match `json:"matches,omitempty"`
	Filters []Policy        `json:"filters,omitempty"`
	// Backends share the rule's traffic by weight.
	Backends []Backend `json:"backends,omitempty"`
	// RequestTimeout bounds the exchange from the request's head to the response's end; 0 means none.
	RequestTimeout time.Duration `json:"requestTimeout,omitempty"`
	// BackendTimeout bounds each attempt; 0 means none.
	BackendTimeout time.Duration `json:"backendTimeout,omitempty"`
	Retry          *Retry        `json:"retry,omitempty"`
	// Persistence keeps a client's requests on one backend and endpoint; it outdoes that of the backend's cluster.
	Persistence *Persistence `json:"persistence,omitempty"`
}

// Persistence keeps the requests of a session on one endpoint for as long as that is there (Gateway API: SessionPersistence).
type Persistence struct {
	// Header carries the session in a header field in place of a cookie.
	Header bool `json:"header,omitempty"`
	// Name is that of the cookie or header field.
	Name string `json:"name"`
	// Path is the cookie's.
	Path string `json:"path,omitempty"`
	// Permanent gives the cookie Max-Age in place of the browser's session.
	Permanent bool `json:"permanent,omitempty"`
	// AbsoluteTimeout ends a session; 0 means never.
	AbsoluteTimeout time.Duration `json:"absoluteTimeout,omitempty"`
	// Key seals what the client carries, so that nobody can make it up. Proxies of one Gateway share it.
	Key Secret `json:"key"`
}

// Retry is when and how often a failed attempt is made again.
type Retry struct {
	// Codes are the response codes that ask for another attempt.
	Codes []int `json:"codes,omitempty"`
	// Attempts is the number of tries after the first.
	Attempts int `json:"attempts"`
	// Backoff is the least wait before a retry; each further one doubles it, with jitter. 0 means 25 ms.
	Backoff time.Duration `json:"backoff,omitempty"`
}

// Backend is one destination of a rule.
type Backend struct {
	// Cluster is the name of one of Config.Clusters; "" when Invalid is set.
	Cluster string `json:"cluster,omitempty"`
	Weight  uint32 `json:"weight"`
	// Filters run after this backend was chosen.
	Filters []Policy `json:"filters,omitempty"`
	// Invalid is the reason word for a reference that does not resolve: its share of requests is answered 500.
	Invalid string `json:"invalid,omitempty"`
}

// Policy is a filter's settings, opened only by the filter's own package.
type Policy struct {
	Kind string `json:"kind"`
	// Payload is JSON.
	Payload RawJSON `json:"payload,omitempty"`
}

// RawJSON is JSON that is carried, not opened.
type RawJSON []byte

// MarshalJSON returns the bytes, or null.
func (r RawJSON) MarshalJSON() ([]byte, error) {
	if len(r) == 0 {
		return []byte("null"), nil
	}
	return r, nil
}

// UnmarshalJSON keeps a copy of the bytes.
func (r *RawJSON) UnmarshalJSON(b []byte) error {
	*r = append((*r)[:0], b...)
	return nil
}

// UpstreamProtocol is what a cluster's endpoints speak.
type UpstreamProtocol string

// The protocols towards an endpoint. A WebSocket cluster is HTTP1 with Upgrade, which every HTTP1 cluster can carry.
const (
	// UpstreamHTTP1 is HTTP/1.1, over TLS when the cluster has TLS settings.
	UpstreamHTTP1 UpstreamProtocol = "http/1.1"
	// UpstreamH2C is HTTP/2 with prior knowledge, without TLS.
	UpstreamH2C UpstreamProtocol = "h2c"
	// UpstreamHTTP2 is HTTP/2 over TLS, with HTTP/1.1 when the endpoint's ALPN answer asks for it.
	UpstreamHTTP2 UpstreamProtocol = "h2"
	// UpstreamTCP is a stream of bytes, over TLS when the cluster has TLS settings.
	UpstreamTCP UpstreamProtocol = "tcp"
	// UpstreamUDP is datagrams.
	UpstreamUDP UpstreamProtocol = "udp"
)

// LoadBalancing chooses an endpoint.
type LoadBalancing string

// The load balancing policies. The default ("") is LeastRequest.
const (
	// LeastRequest picks, of two endpoints drawn at random, the one with fewer requests in flight.
	LeastRequest LoadBalancing = "least_request"
	RoundRobin   LoadBalancing = "round_robin"
)

// Cluster is a destination: a set of endpoints that are reached in one way.
type Cluster struct {
	Origin Origin `json:"origin"`
	// Name is unique: "Kind/namespace/name/port".
	Name     string           `json:"name"`
	Protocol UpstreamProtocol `json:"protocol"`
	// TLS is nil for plaintext.
	TLS *UpstreamTLS `json:"tls,omitempty"`
	// LoadBalancing is "" for the default.
	LoadBalancing LoadBalancing `json:"loadBalancing,omitempty"`
	// Endpoints are the ready addresses, sorted; unused when DNS is set.
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	// DNS resolves the endpoints from a name, again each time its TTL runs out.
	DNS *DNS `json:"dns,omitempty"`
	// Persistence keeps a client's requests on one endpoint, where the rule says nothing.
	Persistence *Persistence `json:"persistence,omitempty"`
	// RetryBudget bounds the retries of all routes that lead here; nil is none.
	RetryBudget *RetryBudget `json:"retryBudget,omitempty"`
}

// RetryBudget bounds retries in relation to requests, so that they cannot make a bad moment worse (Gateway API: RetryConstraint).
type RetryBudget struct {
	// Percent of the requests of the last Interval that may be retries.
	Percent int `json:"percent"`
	// Interval is over which requests and retries are counted.
	Interval time.Duration `json:"interval"`
	// MinRetries in each MinInterval are always allowed.
	MinRetries  int           `json:"minRetries,omitempty"`
	MinInterval time.Duration `json:"minInterval,omitempty"`
}

// DNS is a name whose addresses are a cluster's endpoints.
type DNS struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
	// Loopback lets the name lead to this machine itself. In a Pod that is the gateway's own, with what it shows to operators alone, and whoever
	// names the backend need not be one.
	Loopback bool `json:"loopback,omitempty"`
}

// UpstreamTLS is how a cluster's endpoints are authenticated.
type UpstreamTLS struct {
	// ServerName is sent as SNI and verified, unless SubjectAltNames are given.
	ServerName string `json:"serverName"`
	// CAs is PEM; "" means the system's roots.
	CAs string `json:"cas,omitempty"`
	// SubjectAltNames: the certificate must carry one of these instead of ServerName.
	SubjectAltNames []SubjectAltName `json:"subjectAltNames,omitempty"`
	// ClientCertificate is the name of the one of Config.Certificates that is presented to endpoints that ask; "" is none.
	ClientCertificate string `json:"clientCertificate,omitempty"`
}

// SubjectAltName is a name accepted in an endpoint's certificate.
type SubjectAltName struct {
	// Type is "Hostname" or "URI".
	Type  string `json:"type"`
	Value string `json:"value"`
}

// BindKey names the socket of an address and port: "0.0.0.0:80", "[::]:80" or "*:80" for all interfaces.
func BindKey(addr netip.Addr, port uint16) string {
	if !addr.IsValid() {
		return "*:" + strconv.Itoa(int(port))
	}
	return netip.AddrPortFrom(addr, port).String()
}

// Applied says what of a configuration that took effect does not serve.
type Applied struct {
	// Listeners whose address cannot be bound, by name.
	Listeners map[string]error
	// Clusters that cannot be set up, by name.
	Clusters map[string]error
}
