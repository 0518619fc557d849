package h2

import (
	"errors"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	var initial Settings
	initial.Init()
	tests := map[string]struct {
		frames  [][]Setting
		server  bool
		want    func(s *Settings)
		wantErr Code // NoError: none
	}{
		"none": {nil, false, func(*Settings) {}, NoError},
		"all": {[][]Setting{{{SettingHeaderTableSize, 0}, {SettingEnablePush, 1}, {SettingMaxConcurrentStreams, 7}, {SettingInitialWindowSize, 0},
			{SettingMaxFrameSize, MaxFrameSize}, {SettingMaxHeaderListSize, 9}, {SettingEnableConnect, 1}, {SettingNoPriorities, 1}, {0x99, 5}}}, false,
			func(s *Settings) {
				*s = Settings{0, 7, 0, MaxFrameSize, 9, true, true, false}
			}, NoError},
		"the last counts":         {[][]Setting{{{SettingInitialWindowSize, 1}, {SettingInitialWindowSize, 2}}, {{SettingInitialWindowSize, 3}}}, false, func(s *Settings) { s.InitialWindowSize = 3 }, NoError},
		"what is absent stays":    {[][]Setting{{{SettingNoPriorities, 1}}, {{SettingInitialWindowSize, 3}}}, false, func(s *Settings) { s.InitialWindowSize, s.NoPriorities = 3, true }, NoError},
		"push by 2":               {[][]Setting{{{SettingEnablePush, 2}}}, false, nil, ProtocolError},
		"push by a server":        {[][]Setting{{{SettingEnablePush, 1}}}, true, nil, ProtocolError},
		"no push by a server":     {[][]Setting{{{SettingEnablePush, 0}}}, true, func(*Settings) {}, NoError},
		"window":                  {[][]Setting{{{SettingInitialWindowSize, 1 << 31}}}, false, nil, FlowControlError},
		"largest window":          {[][]Setting{{{SettingInitialWindowSize, MaxWindow}}}, false, func(s *Settings) { s.InitialWindowSize = MaxWindow }, NoError},
		"frame size 0":            {[][]Setting{{{SettingMaxFrameSize, 0}}}, true, nil, ProtocolError},
		"small frame":             {[][]Setting{{{SettingMaxFrameSize, MinFrameSize - 1}}}, false, nil, ProtocolError},
		"large frame":             {[][]Setting{{{SettingMaxFrameSize, MaxFrameSize + 1}}}, false, nil, ProtocolError},
		"connect by 2":            {[][]Setting{{{SettingEnableConnect, 2}}}, true, nil, ProtocolError},
		"connect taken back":      {[][]Setting{{{SettingEnableConnect, 1}}, {{SettingEnableConnect, 0}}}, true, nil, ProtocolError},
		"priorities by 2":         {[][]Setting{{{SettingNoPriorities, 2}}}, false, nil, ProtocolError},
		"priorities change":       {[][]Setting{{{SettingNoPriorities, 0}}, {{SettingNoPriorities, 1}}}, false, nil, ProtocolError},
		"priorities change later": {[][]Setting{{}, {{SettingNoPriorities, 1}}}, false, nil, ProtocolError},
	}
	for name, tc := range tests {
		got, want := initial, initial
		var err error
		for _, settings := range tc.frames {
			if err == nil {
				err = got.Apply(AppendSettings(nil, settings...)[FrameHeader:], tc.server)
			}
		}
		if tc.wantErr != NoError {
			if e, ok := errors.AsType[*ConnError](err); !ok || e.Code != tc.wantErr {
				t.Errorf("%s: got %v, want %v", name, err, tc.wantErr)
			}
			continue
		}
		tc.want(&want)
		if got.received = false; err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestParsePriority(t *testing.T) {
	for value, want := range map[string]Priority{
		"":                  {3, false},
		"u=0":               {0, false},
		"u=7, i":            {7, true},
		"i":                 {3, true},
		"i=?0, u=1":         {1, false},
		"i=?1;x=2,u=2;q":    {2, true},
		" \tu=5 ,\ti ":      {5, true},
		"u=1, u=2":          {2, false},
		"u=8":               {3, false},
		"u=-1":              {3, false},
		"u=12":              {3, false},
		"u=1.0":             {3, false},
		"u":                 {3, false},
		"i=1":               {3, false},
		"i;a=b":             {3, true},
		"a=\"b, u=x\", u=4": {4, false},
		",,,":               {3, false},
		"u=;=,=u":           {3, false},
	} {
		if got := ParsePriority(value); got != want {
			t.Errorf("%q: got %+v, want %+v", value, got, want)
		}
	}
}

func TestBudget(t *testing.T) {
	var b Budget
	if b.Spend(1) {
		t.Error("the zero budget has something to spend")
	}
	b.Init(10, 4)
	for i := range 10 {
		if !b.Spend(1) {
			t.Fatalf("spent after %d", i)
		}
	}
	if b.Spend(1) {
		t.Error("more was spent than there was")
	}
	b.Give(3) // one was owed
	if !b.Spend(2) || b.Spend(1) {
		t.Error("what was given is not what can be spent")
	}
	b.Give(1)
	for range 10 {
		b.Refill(90 * time.Millisecond) // 3.6 in sum
	}
	if !b.Spend(3) || b.Spend(1) {
		t.Error("0.9 seconds at 4 a second are not 3")
	}
	b.Refill(time.Hour)
	if !b.Spend(10) || b.Spend(1) {
		t.Error("an hour does not fill it, or overfills it")
	}
}
