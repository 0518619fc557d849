package hostile

import (
	"fmt"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/test/harness"
)

// TestHTTP1 sends every attack of the tables on a connection of its own.
func TestHTTP1(t *testing.T) {
	t.Parallel()
	for name, a := range attacks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a.run(t)
		})
	}
}

func (a attack) run(t *testing.T) {
	b := newBed(t, harness.H1, harness.AnswerOK)
	answer := b.send(t, a.raw)
	got := b.reached(t)
	recorded := b.origin.Bytes()
	if a.forwarded != "" {
		if len(got) != 1 || !strings.Contains(recorded, a.forwarded) || !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			t.Errorf("the origin got %.200q, want one request with %.200q; the client got %.60q", recorded, a.forwarded, answer)
		}
		if a.never != "" && strings.Contains(recorded, a.never) {
			t.Errorf("the origin got %q in %q", a.never, recorded)
		}
		return
	}
	if len(got) > 0 {
		t.Errorf("the origin got %.200q; the client got %.60q", recorded, answer)
	}
	if strings.Contains(recorded, "smuggled") {
		t.Errorf("the origin got what stood behind the request: %.200q", recorded)
	}
	if a.status == 0 {
		a.status = 400
	}
	if want := fmt.Sprintf("HTTP/1.1 %d ", a.status); !strings.HasPrefix(answer, want) {
		t.Errorf("the client got %.60q, want %s; the origin got %.200q", answer, want, recorded)
	}
	if !a.open && (!strings.Contains(strings.ToLower(answer), "\r\nconnection: close\r\n") || strings.Count(answer, "HTTP/1.1 ") != 1) {
		t.Errorf("the client got %.400q, want one answer that ends the connection", answer)
	}
}
