// Package conformance runs the official conformance suite of Gateway API, unmodified, against whatever KUBECONFIG leads to. The command
// below cmd makes a cluster with a gateway for it; see README.md.
package conformance

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

var only = flag.String("only", "", "names of tests, separated by commas; all others are left out")

// profiles are those that a gateway is held against.
var profiles = []suite.ConformanceProfileName{
	suite.GatewayHTTPConformanceProfileName, suite.GatewayGRPCConformanceProfileName, suite.GatewayTLSConformanceProfileName,
	suite.GatewayTCPConformanceProfileName, suite.GatewayUDPConformanceProfileName,
}

// TestGatewayAPI is the suite. What it is asked to show is what the GatewayClass says in status.supportedFeatures.
func TestGatewayAPI(t *testing.T) {
	opts := conformance.DefaultOptions(t)
	if len(opts.ConformanceProfiles) == 0 {
		opts.ConformanceProfiles = profiles
	}
	if *only != "" {
		opts.SkipTests = append(opts.SkipTests, allBut(strings.Split(*only, ","))...)
	}
	conformance.RunConformanceWithOptions(t, opts)
}

// allBut returns the names of the suite's tests that are not wanted.
func allBut(wanted []string) (skip []string) {
	for _, test := range tests.ConformanceTests {
		if !slices.Contains(wanted, test.ShortName) {
			skip = append(skip, test.ShortName)
		}
	}
	return skip
}
