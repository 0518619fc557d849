package content

import "testing"

func TestExpand(t *testing.T) {
	variables := map[string]string{"A": "1", "LONG_NAME": "two words", "EMPTY": ""}
	for name, test := range map[string]struct{ text, want string }{
		"nothing":         {"plain", "plain"},
		"one":             {"--port=$(A)", "--port=1"},
		"two":             {"$(A)$(LONG_NAME).", "1two words."},
		"empty value":     {"<$(EMPTY)>", "<>"},
		"unknown":         {"$(B) $(A)", "$(B) 1"},
		"escaped":         {"$$(A)", "$(A)"},
		"escaped twice":   {"$$$$(A)", "$$(A)"},
		"escaped, then":   {"$$$(A)", "$1"},
		"shell variable":  {"echo $HOME $(A)", "echo $HOME 1"},
		"not closed":      {"$(A", "$(A"},
		"at the end":      {"a$", "a$"},
		"only a dollar":   {"$", "$"},
		"value stays raw": {"$(LONG_NAME)", "two words"},
	} {
		if got := Expand(test.text, variables); got != test.want {
			t.Errorf("%s: %q became %q, want %q", name, test.text, got, test.want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"$(A)", "$$(A)", "$(", "$", "$$$", "a$(B)c)"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// Without variables only the escapes go.
		if got := Expand(text, nil); len(got) > len(text) {
			t.Errorf("%q grew to %q", text, got)
		}
	})
}
