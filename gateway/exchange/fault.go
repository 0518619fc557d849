package exchange

import (
	"errors"
	"fmt"
)

// Side says on which side of the gateway a fault arose.
type Side uint8

// The sides of a Fault.
const (
	SideGateway Side = iota
	SideClient
	SideUpstream
)

// String returns "gateway", "client" or "upstream".
func (s Side) String() string { return [...]string{"gateway", "client", "upstream"}[s] }

// Kind is the stable word for why an exchange failed. The same word stands in the reply's detail, the access log's flag, the
// metric label and `gatehouse explain`. docs/reference.md lists them.
type Kind string

// The kinds of Fault with the status that the client gets. A kind is never renamed.
const (
	BadRequest         Kind = "bad_request"         // 400: the message breaks its protocol
	BadPath            Kind = "bad_path"            // 400: the path has no one safe meaning; see Head.Normalize
	FieldsTooLarge     Kind = "fields_too_large"    // 431: header bytes or count over the listener's limit
	BodyTooLarge       Kind = "body_too_large"      // 413: body over the listener's limit
	MethodRefused      Kind = "method_refused"      // 405: CONNECT to an ingress listener, TRACE
	ExpectationFailed  Kind = "expectation_failed"  // 417: Expect other than 100-continue
	ClientTimeout      Kind = "client_timeout"      // 408: the client stopped sending its head or body
	ClientAborted      Kind = "client_aborted"      // 499 in the log only: the client went away
	NoRoute            Kind = "no_route"            // 404: no listener's hostname or no route's rule matches
	Misdirected        Kind = "misdirected"         // 421: the Host belongs to another TLS listener
	InvalidBackend     Kind = "invalid_backend"     // 500: the chosen backend reference does not resolve
	NoBackends         Kind = "no_backends"         // 500: the rule has no backend, or every weight is 0
	FilterFailed       Kind = "filter_failed"       // 500: a filter could not decide
	AuthFailed         Kind = "auth_failed"         // 403: the external authorization server could not be asked, or its answer was unusable
	NoEndpoints        Kind = "no_endpoints"        // 503: the backend has no ready endpoint
	UpstreamConnect    Kind = "upstream_connect"    // 503: no connection to the endpoint
	UpstreamTLS        Kind = "upstream_tls"        // 503: TLS to the endpoint failed
	UpstreamReset      Kind = "upstream_reset"      // 502: the endpoint ended the exchange before its answer was whole
	UpstreamProtocol   Kind = "upstream_protocol"   // 502: the endpoint's answer breaks its protocol
	UpstreamTimeout    Kind = "upstream_timeout"    // 504: backendRequest timeout
	RequestTimeout     Kind = "request_timeout"     // 504: request timeout
	UpgradeUnsupported Kind = "upgrade_unsupported" // 400: an upgrade that the gateway or the endpoint cannot carry
)

// Fault says why an exchange failed: on whose side, as what, and what the client is told. Only the Engine turns a Fault into a
// reply.
type Fault struct {
	Origin Side
	Kind   Kind
	// Status is the HTTP status for the client.
	Status int
	// Retryable says that the request certainly did not start to be processed, so that sending it again is safe whatever its method.
	Retryable bool
	// Err is the cause, for the log; its text never reaches the client.
	Err error
}

// Error returns side, kind and cause.
func (f *Fault) Error() string {
	if f.Err == nil {
		return fmt.Sprintf("%s: %s", f.Origin, f.Kind)
	}
	return fmt.Sprintf("%s: %s: %v", f.Origin, f.Kind, f.Err)
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// NewFault makes a Fault of a kind, with the side and status that belong to that kind.
func NewFault(kind Kind, err error) *Fault {
	f := &Fault{Kind: kind, Err: err, Origin: SideGateway, Status: 500}
	switch kind {
	case BadRequest, BadPath, UpgradeUnsupported:
		f.Origin, f.Status = SideClient, 400
	case FieldsTooLarge:
		f.Origin, f.Status = SideClient, 431
	case BodyTooLarge:
		f.Origin, f.Status = SideClient, 413
	case MethodRefused:
		f.Origin, f.Status = SideClient, 405
	case ExpectationFailed:
		f.Origin, f.Status = SideClient, 417
	case ClientTimeout:
		f.Origin, f.Status = SideClient, 408
	case ClientAborted:
		f.Origin, f.Status = SideClient, 499
	case NoRoute:
		f.Status = 404
	case Misdirected:
		f.Origin, f.Status = SideClient, 421
	case AuthFailed:
		f.Status = 403
	case NoEndpoints:
		f.Status = 503
	case UpstreamConnect, UpstreamTLS:
		f.Origin, f.Status, f.Retryable = SideUpstream, 503, true
	case UpstreamReset, UpstreamProtocol:
		f.Origin, f.Status = SideUpstream, 502
	case UpstreamTimeout:
		f.Origin, f.Status = SideUpstream, 504
	case RequestTimeout:
		f.Status = 504
	}
	return f
}

// AsFault returns the Fault in err's chain, or a new one of the given kind about err.
func AsFault(err error, kind Kind) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return NewFault(kind, err)
}
