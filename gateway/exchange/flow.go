package exchange

import "time"

// Flow is one client connection whose bytes pass unread, or the datagrams of one client: what a TLSRoute, TCPRoute or UDPRoute
// serves. It is what telemetry gets of it, at its end.
type Flow struct {
	Peer Peer
	// Listener is the name of the listener that serves it, "" when none does.
	Listener string
	// Start is when the connection was accepted, or the first datagram came.
	Start time.Time

	// Route is nil when there is none for the connection.
	Route *RouteRef
	// Cluster and Endpoint are where the connection went, or where it last tried to; "" when it did not.
	Cluster  string
	Endpoint string
	// Attempts counts the endpoints that were tried.
	Attempts int
	// Fault is why the connection failed, nil when it did not. Its Status means nothing here.
	Fault *Fault
	// BytesIn and BytesOut count bytes from and to the client: those within TLS where the gateway opened it.
	BytesIn  int64
	BytesOut int64
	// TraceID is the 32 hex digits of the trace that the connection is recorded in, "" when it is not.
	TraceID string
}

// ServerName is the SNI, "" when there was none.
func (f *Flow) ServerName() string {
	if f.Peer.TLS == nil {
		return ""
	}
	return f.Peer.TLS.ServerName
}
