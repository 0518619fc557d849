// Package problem is what is wrong with an object, said once and the same way in `gatehouse validate`, the log, a metric, /config
// and, in a cluster, a status condition.
package problem

import (
	"cmp"
	"fmt"
	"slices"
)

// Reason is the stable word for a problem. Where Gateway API has a condition reason for it, the word is that one. A reason is
// never renamed; docs/reference.md lists them.
type Reason string

// The reasons for setting something aside.
const (
	// Of files and objects, before translation.
	Unreadable    Reason = "Unreadable"    // a file cannot be read
	Unparsable    Reason = "Unparsable"    // a document is not YAML or JSON, or not an object
	UnknownKind   Reason = "UnknownKind"   // the kind is none that the gateway reads
	SchemaInvalid Reason = "SchemaInvalid" // what a Kubernetes API server would reject
	Duplicate     Reason = "Duplicate"     // the same object stands twice; the first one counts

	// Of Gateways and listeners.
	UnknownClass          Reason = "UnknownClass"          // gatewayClassName names no class of this gateway
	UnsupportedProtocol   Reason = "UnsupportedProtocol"   // a protocol that this version does not serve
	HostnameConflict      Reason = "HostnameConflict"      // two listeners with one port, protocol and hostname
	InvalidParameters     Reason = "InvalidParameters"     // a parametersRef that this version does not read
	ProtocolConflict      Reason = "ProtocolConflict"      // two listeners with one port and different protocols
	InvalidCertificateRef Reason = "InvalidCertificateRef" // a certificate that is missing or does not parse
	InvalidRouteKinds     Reason = "InvalidRouteKinds"     // allowedRoutes names a kind that the listener cannot serve
	UnsupportedAddress    Reason = "UnsupportedAddress"    // an address that cannot be bound
	AddressNotUsable      Reason = "AddressNotUsable"      // a socket that cannot be opened
	PortUnavailable       Reason = "PortUnavailable"       // a port that something else of the Gateway's has
	NotAllowed            Reason = "NotAllowed"            // a ListenerSet that its Gateway does not admit
	ParentNotAccepted     Reason = "ParentNotAccepted"     // a ListenerSet whose Gateway is not accepted

	// Of routes.
	NoMatchingParent           Reason = "NoMatchingParent"           // a parentRef that names no Gateway, listener or port
	NotAllowedByListeners      Reason = "NotAllowedByListeners"      // allowedRoutes excludes the route
	NoMatchingListenerHostname Reason = "NoMatchingListenerHostname" // no hostname in common with the listener
	KindConflict               Reason = "KindConflict"               // an older route of another kind has the hostname
	InvalidRule                Reason = "InvalidRule"                // a rule that does not compile; the rule is set aside
	InvalidFilter              Reason = "InvalidFilter"              // a filter that does not build
	UnsupportedValue           Reason = "UnsupportedValue"           // a value that this version does not serve

	// Of policies and TLS.
	Invalid                     Reason = "Invalid"                     // a policy that says something that cannot be followed
	Conflicted                  Reason = "Conflicted"                  // an older policy has the same target
	TargetNotFound              Reason = "TargetNotFound"              // a policy for something that does not exist
	InvalidCACertificateRef     Reason = "InvalidCACertificateRef"     // CA certificates that are missing or do not parse
	InvalidCACertificateKind    Reason = "InvalidCACertificateKind"    // CA certificates in a kind that holds none
	NoValidCACertificate        Reason = "NoValidCACertificate"        // no CA certificate is left to verify with
	InvalidClientCertificateRef Reason = "InvalidClientCertificateRef" // a client certificate that is missing or does not parse

	// Of references.
	RefNotPermitted Reason = "RefNotPermitted" // another namespace, and no ReferenceGrant
	InvalidKind     Reason = "InvalidKind"     // a kind that cannot be referenced here
	BackendNotFound Reason = "BackendNotFound" // the object or its port does not exist
	InvalidBackend  Reason = "InvalidBackend"  // the object exists and cannot be used
)

// Problem is one thing that is wrong. What it concerns is set aside; everything else goes on.
type Problem struct {
	// Kind, Namespace and Name name the object; all "" when the file holds none.
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// File and Line say where; "" and 0 when the object did not come from a file.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Field is the path within the object: "spec.rules[0].matches[1].path.value".
	Field  string `json:"field,omitempty"`
	Reason Reason `json:"reason"`
	// Message says what is wrong and the way out: lower case, one line.
	Message string `json:"message"`
	// SetAside says what is not served because of it: "the object", "rule 0", "listener https".
	SetAside string `json:"setAside,omitempty"`
}

// Object returns "Kind/namespace/name", or the file.
func (p Problem) Object() string {
	switch {
	case p.Name == "":
		return p.File
	case p.Namespace == "":
		return p.Kind + "/" + p.Name
	}
	return p.Kind + "/" + p.Namespace + "/" + p.Name
}

// Error returns "file:line: Kind/namespace/name: field: message (Reason)".
func (p Problem) Error() string {
	s := ""
	if p.File != "" {
		s = p.File + ": "
		if p.Line > 0 {
			s = fmt.Sprintf("%s:%d: ", p.File, p.Line)
		}
	}
	if p.Name != "" {
		s += p.Object() + ": "
	}
	if p.Field != "" {
		s += p.Field + ": "
	}
	return fmt.Sprintf("%s%s (%s)", s, p.Message, p.Reason)
}

// Sort orders problems by file, line, object and field.
func Sort(list []Problem) {
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Object(), b.Object()),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
}
