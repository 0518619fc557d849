package leader

import (
	"slices"
	"testing"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// A Gateway that cannot be accepted now, or whose class is missing for now, keeps its address.
func TestRefused(t *testing.T) {
	outcome := func(name, rule string, accepted bool) plan.Outcome {
		return plan.Outcome{
			Object:     config.Origin{Kind: "Gateway", Namespace: "n", Name: name, Rule: rule},
			Conditions: []plan.Condition{{Type: "Accepted", Status: accepted}},
		}
	}
	got := refused(&plan.Plan{
		Outcomes: []plan.Outcome{outcome("good", "", true), outcome("good", "bad-listener", false), outcome("bad", "", false)},
		Problems: []problem.Problem{
			{Kind: "Gateway", Namespace: "n", Name: "classless", Reason: problem.UnknownClass},
			{Kind: "Gateway", Namespace: "n", Name: "good", Reason: problem.UnsupportedValue},
		},
	})
	if want := []string{"n/bad", "n/classless"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
