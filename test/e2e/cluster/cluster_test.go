package cluster

import (
	"testing"
	"time"
)

// TestCluster runs everything in one cluster, one after another: what one measures another one's load would spoil.
func TestCluster(t *testing.T) {
	l := need(t)
	t.Log(l.took)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *lab)
	}{
		{"nothing crosses over", testIsolation},
		{"revoked grant", testRevokedGrant},
		{"secrets", testSecrets},
		{"names and removal", testNames},
		{"programmed", testProgrammed},
		{"proxy rollout", testRollout},
		{"controller restart", testRestart},
		{"one bad of each kind", testBad},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			test.run(t, l)
			t.Logf("took %.1fs", time.Since(began).Seconds())
		})
	}
}
