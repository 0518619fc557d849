package container

import (
	"slices"
	"testing"
)

func TestChangeCapabilities(t *testing.T) {
	for name, test := range map[string]struct{ add, drop, want []string }{
		"default":         {want: DefaultCapabilities()},
		"drop all":        {drop: []string{"ALL"}},
		"drop all, small": {drop: []string{"all", "KILL"}},
		"all but one":     {drop: []string{"ALL"}, add: []string{"NET_BIND_SERVICE"}, want: []string{"NET_BIND_SERVICE"}},
		"prefix":          {drop: []string{"ALL"}, add: []string{"cap_net_admin"}, want: []string{"NET_ADMIN"}},
		"twice":           {add: []string{"KILL"}, want: DefaultCapabilities()},
		"add all":         {drop: []string{"ALL"}, add: []string{"ALL"}, want: capabilityNames()},
	} {
		got, err := ChangeCapabilities(test.add, test.drop)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, error %v, want %v", name, got, err, test.want)
		}
	}
	if _, err := ChangeCapabilities([]string{"FLY"}, nil); err == nil {
		t.Error("a capability that is none was added")
	}
	// The kernel's numbers, by which the names are found (capability.h).
	for name, number := range map[string]int{"CHOWN": 0, "NET_BIND_SERVICE": 10, "NET_RAW": 13, "SYS_ADMIN": 21, "SETFCAP": 31, "CHECKPOINT_RESTORE": 40} {
		if got := slices.Index(capabilityNames(), name); got != number {
			t.Errorf("%s is number %d, want %d", name, got, number)
		}
	}
}
