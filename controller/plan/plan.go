// Package plan is what translators make: a config.Config, the outcome for every object, and the problems found. It is the only home
// of the rules of precedence and conflict (ByPrecedence, Conflicts, Overlaps, Hostnames), so that two translators cannot decide
// differently. It knows nothing of Kubernetes objects.
package plan

import (
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Plan is the result of one translation. It is immutable: what did not change since the Plan before it is the same pointer.
type Plan struct {
	Config *config.Config `json:"config"`
	// Outcomes are sorted by object and parent.
	Outcomes []Outcome `json:"outcomes,omitempty"`
	// Problems are sorted by place. They are the translation's own; those of source.State come on top.
	Problems []problem.Problem `json:"problems,omitempty"`
	// Gateways are the accepted ones, sorted by namespace and name: what has to be run for each.
	Gateways []Gateway `json:"gateways,omitempty"`
	// Wants are the Secrets and ConfigMaps that permitted references lead to, whether they exist or not, sorted. Of each, Kind, Namespace
	// and Name are set.
	Wants []config.Origin `json:"wants,omitempty"`
}

// Outcome is what became of an object under one parent (a route under a Gateway's listener, a listener under its Gateway, a Gateway
// under its class). It carries no time: who writes a status stamps it.
//
// A listener is its Gateway's or ListenerSet's Origin with Rule set to the listener's name; the parent of a ListenerSet is the Gateway. A
// route's parent is the Gateway's or ListenerSet's Origin with Rule set to the parentRef's sectionName, which is "" when the parentRef
// names the whole object. The parent of what else attaches (policies, XBackend) is the Gateway that it has effect in.
type Outcome struct {
	Object config.Origin `json:"object"`
	// Parent is the zero Origin for an object that has none.
	Parent     config.Origin `json:"parent,omitzero"`
	Conditions []Condition   `json:"conditions"`
	// AttachedRoutes counts the routes of a listener; -1 for other objects.
	AttachedRoutes int `json:"attachedRoutes"`
	// ParentRef is the index in a route's spec.parentRefs that this outcome answers, which tells apart references that differ in
	// port only; -1 for a default Gateway, which no parentRef names; 0 for other objects.
	ParentRef int `json:"parentRef,omitempty"`
	// SupportedKinds are the route kinds of Gateway API that a listener serves; nil for other objects.
	SupportedKinds []string `json:"supportedKinds,omitempty"`
	// Serves says of a listener that it is part of Plan.Config.
	Serves bool `json:"serves,omitempty"`
	// AttachedListenerSets counts the accepted ListenerSets of a Gateway; 0 for other objects.
	AttachedListenerSets int `json:"attachedListenerSets,omitempty"`
}

// Condition is one condition of Gateway API, without time. The condition Programmed is in no Outcome: it takes acknowledgements. Where
// Accepted is false, Programmed is false for the same reason.
type Condition struct {
	Type    string `json:"type"`
	Status  bool   `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}
