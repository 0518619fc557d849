package plan

import (
	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Gateway is an accepted Gateway: what has to be run for it.
type Gateway struct {
	// Origin is of kind Gateway and has no Rule.
	Origin config.Origin `json:"origin"`
	// UID is metadata.uid, "" where there is no cluster.
	UID string `json:"uid,omitempty"`
	// Class is the name of its GatewayClass.
	Class string `json:"class"`
	// Ports are those of the listeners that serve, each once, sorted by number and protocol. A port of HTTPS listeners is there twice: UDP
	// is for HTTP/3, unless UDP listeners have it.
	Ports []Port `json:"ports,omitempty"`
	// Addresses are the requested ones.
	Addresses []Address `json:"addresses,omitempty"`
	// Routability is that of spec.addresses: "", "Public", "Private" or "Cluster".
	Routability string `json:"routability,omitempty"`
	// Labels and Annotations are those of spec.infrastructure.
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Parameters are the class's, outdone field by field by the Gateway's.
	Parameters v1alpha1.GatewayParametersSpec `json:"parameters,omitzero"`
}

// Key returns "namespace/name", which is config.Listener.Gateway of its listeners.
func (g *Gateway) Key() string { return g.Origin.Namespace + "/" + g.Origin.Name }

// Port is a port on which a Gateway is reached.
type Port struct {
	Number uint16 `json:"number"`
	// Protocol is "TCP" or "UDP".
	Protocol string `json:"protocol"`
	// Name is unique within the Gateway and a DNS label of at most 15 characters: "tcp-443", "udp-443".
	Name string `json:"name"`
}

// Address is one that a Gateway asks for, or has.
type Address struct {
	// Type is "IPAddress", "Hostname" or one of a domain of its own.
	Type string `json:"type"`
	// Value is "" to have one assigned.
	Value string `json:"value,omitempty"`
}
