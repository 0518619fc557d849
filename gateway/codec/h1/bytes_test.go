package h1

import "testing"

// TestEightBytesAtOnce has every two bytes beside each other at every place of a word, where a borrow or a carry of one could hide or
// make up the other, and compares with looking at each byte.
func TestEightBytesAtOnce(t *testing.T) {
	naive := func(b []byte, class uint8) int {
		for i, c := range b {
			if classes[c]&class == 0 {
				return i
			}
		}
		return len(b)
	}
	for _, filler := range []byte{'a', 0xff, 0x80, '~', '"'} {
		for at := range 9 {
			b := []byte{filler, filler, filler, filler, filler, filler, filler, filler, filler, filler, filler}
			for first := range 256 {
				for second := range 256 {
					b[at], b[at+1] = byte(first), byte(second)
					if got, want := value(b), naive(b, inValue); got != want {
						t.Fatalf("value(%x) = %d, want %d", b, got, want)
					}
					if got, want := target(b), naive(b, inTarget); got != want {
						t.Fatalf("target(%x) = %d, want %d", b, got, want)
					}
				}
			}
		}
	}
}

func TestSameFold(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"a.B", "A.b", true}, {"a", "b", false}, {"a", "aa", false}, {"@", "`", false}, {"[", "{", false},
		{"\u212a", "k", false}, {"k", "\u212a", false}, {"\x0d", "-", false},
	} {
		if got := sameFold(tt.a, tt.b); got != tt.want {
			t.Errorf("sameFold(%q, %q) = %v", tt.a, tt.b, got)
		}
		if got := isFold(tt.a, tt.b); got && !tt.want {
			t.Errorf("isFold(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
}
