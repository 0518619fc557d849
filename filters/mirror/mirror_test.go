package mirror

import (
	"slices"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/filtertest"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestShare runs one request for each number that can be drawn, which gives the share exactly.
func TestShare(t *testing.T) {
	tests := map[string]struct {
		config Config
		of     int32 // the denominator that the draw must be asked for; 0 when it must not be asked
		want   int
	}{
		"all":               {Config{Cluster: "c"}, 0, 10},
		"100 percent":       {Config{Cluster: "c", Percent: new(int32(100))}, 0, 10},
		"0 percent":         {Config{Cluster: "c", Percent: new(int32(0))}, 0, 0},
		"1 percent":         {Config{Cluster: "c", Percent: new(int32(1))}, 100, 1},
		"42 percent":        {Config{Cluster: "c", Percent: new(int32(42))}, 100, 42},
		"99 percent":        {Config{Cluster: "c", Percent: new(int32(99))}, 100, 99},
		"1 of 3":            {Config{Cluster: "c", Fraction: &Fraction{1, 3}}, 3, 1},
		"5 of 1000":         {Config{Cluster: "c", Fraction: &Fraction{5, 1000}}, 1000, 5},
		"50, no second":     {Config{Cluster: "c", Fraction: &Fraction{Numerator: 50}}, 100, 50},
		"0 of 7":            {Config{Cluster: "c", Fraction: &Fraction{0, 7}}, 0, 0},
		"7 of 7":            {Config{Cluster: "c", Fraction: &Fraction{7, 7}}, 0, 10},
		"invalid":           {Config{Invalid: "RefNotPermitted"}, 0, 0},
		"invalid, with all": {Config{Invalid: "BackendNotFound", Percent: new(int32(100))}, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := filtertest.Build(t, Spec(), tt.config).(*filter)
			next := int32(0)
			f.draw = func(n int32) int32 {
				if n != tt.of {
					t.Errorf("drawn of %d, want %d", n, tt.of)
				}
				next++
				return next - 1
			}
			got := 0
			for range max(tt.of, 10) {
				x := &exchange.Exchange{Mirrors: []string{"before"}}
				if action, err := f.OnRequest(t.Context(), x); action != filters.Continue || err != nil {
					t.Fatalf("OnRequest: %v, %v", action, err)
				}
				f.OnResponse(x)
				switch {
				case slices.Equal(x.Mirrors, []string{"before", "c"}):
					got++
				case !slices.Equal(x.Mirrors, []string{"before"}):
					t.Fatalf("mirrors %v", x.Mirrors)
				}
			}
			if got != tt.want {
				t.Errorf("%d mirrored, want %d", got, tt.want)
			}
		})
	}
}

// TestDrawsForItself uses the real source: a filter that never or always mirrors would be seen.
func TestDrawsForItself(t *testing.T) {
	f := filtertest.Build(t, Spec(), Config{Cluster: "c", Percent: new(int32(50))})
	x := &exchange.Exchange{}
	for range 1000 {
		if _, err := f.OnRequest(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(x.Mirrors); n < 350 || n > 650 { // 9.5 standard deviations on either side
		t.Errorf("%d of 1000 mirrored, want about half", n)
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"no cluster":           {Config{}, "cluster is empty"},
		"cluster and invalid":  {Config{Cluster: "c", Invalid: "x"}, "cluster and invalid are both set"},
		"percent and fraction": {Config{Cluster: "c", Percent: new(int32(1)), Fraction: &Fraction{1, 2}}, "percent and fraction are both set"},
		"percent over 100":     {Config{Cluster: "c", Percent: new(int32(101))}, "percent 101 is not between"},
		"percent under 0":      {Config{Cluster: "c", Percent: new(int32(-1))}, "percent -1 is not between"},
		"fraction over 1":      {Config{Cluster: "c", Fraction: &Fraction{3, 2}}, "fraction 3/2 is not between"},
		"numerator under 0":    {Config{Cluster: "c", Fraction: &Fraction{-1, 2}}, "fraction -1/2 is not between"},
		"denominator under 0":  {Config{Cluster: "c", Fraction: &Fraction{-2, -1}}, "fraction -2/-1 is not between"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { filtertest.CheckRefused(t, Spec(), tt.config, tt.want) })
	}
	filtertest.CheckStrict(t, Spec())
}

func TestReadmeExample(t *testing.T) {
	example := filtertest.Examples(t)[0]
	if example.Kind != Kind {
		t.Fatalf("README.md shows a %s", example.Kind)
	}
	f := filtertest.Build(t, Spec(), example.Payload).(*filter)
	for drawn, want := range map[int32]int{0: 1, 4: 1, 5: 0, 999: 0} {
		f.draw = func(int32) int32 { return drawn }
		x := filtertest.Exchange(t, "GET", "http://a/", 80)
		if _, err := f.OnRequest(t.Context(), x); err != nil || len(x.Mirrors) != want {
			t.Errorf("%d drawn: mirrors %v, %v", drawn, x.Mirrors, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	for want, config := range map[string]Config{
		"mirror all requests to c":        {Cluster: "c"},
		"mirror 10% of requests to c":     {Cluster: "c", Percent: new(int32(10))},
		"mirror 1/1000 of requests to c":  {Cluster: "c", Fraction: &Fraction{1, 1000}},
		"mirror 7/100 of requests to c":   {Cluster: "c", Fraction: &Fraction{Numerator: 7}},
		"mirror nothing: RefNotPermitted": {Invalid: "RefNotPermitted"},
	} {
		if got := Spec().Describe(filters.Encode(config)); got != want {
			t.Errorf("Describe: %q, want %q", got, want)
		}
	}
}
