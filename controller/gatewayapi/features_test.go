package gatewayapi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/pkg/features"
)

// TestFeaturesAreAccountedFor holds docs/conformance against the registry of features: each one stands there, and those that are declared are
// not among those that are not.
func TestFeaturesAreAccountedFor(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "conformance", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	with, without, found := strings.Cut(string(text), "Not declared:")
	if !found {
		t.Fatal("the page has no part about what is not declared")
	}
	declared := SupportedFeatures()
	for feature := range features.AllFeatures {
		name := "`" + string(feature.Name) + "`"
		switch {
		case slices.Contains(declared, string(feature.Name)) != strings.Contains(with, name):
			t.Errorf("%s: what the page declares and what the GatewayClass says differ", name)
		case strings.Contains(with, name) == strings.Contains(without, name):
			t.Errorf("%s must stand in one part of the page", name)
		}
	}
}
