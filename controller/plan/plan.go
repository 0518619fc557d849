// Package plan is what translators make: a config.Config, the outcome for every object, and the problems found. It is the only home
// of the rules of precedence and conflict, so that two translators cannot decide differently.
package plan

import (
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Plan is the result of one translation.
type Plan struct {
	Config   *config.Config
	Outcomes []Outcome
	Problems []problem.Problem
}

// Outcome is what became of an object under one parent (a route under a Gateway's listener, a listener under its Gateway, a Gateway
// under its class). It carries no time: who writes a status stamps it.
type Outcome struct {
	Object config.Origin
	// Parent is the zero Origin for an object that has none.
	Parent     config.Origin
	Conditions []Condition
	// AttachedRoutes counts the routes of a listener; -1 for other objects.
	AttachedRoutes int
}

// Condition is one condition of Gateway API, without time.
type Condition struct {
	Type    string
	Status  bool
	Reason  string
	Message string
}
