package h2

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

// given counts what an inbox gives back.
type given struct{ n atomic.Int64 }

func (g *given) Give(n uint32) { g.n.Add(int64(n)) }

const testWindow = 64 << 10

func newInbox() (*Inbox, *given) {
	i, g := &Inbox{}, &given{}
	i.Init(nil, testWindow, testWindow, g)
	return i, g
}

// pattern is bytes that tell where they stand.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func TestInbox(t *testing.T) {
	i, g := newInbox()
	want := pattern(40_000)
	for at := 0; at < len(want); at += 1000 {
		if !i.Put(want[at:at+1000], 1000) {
			t.Fatal("the window is too small")
		}
	}
	if n, whole := i.Ready(); n != len(want) || whole {
		t.Errorf("%d bytes are ready, whole %v", n, whole)
	}
	got := make([]byte, len(want))
	if n, err := i.Read(got); n != len(want) || err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if g.n.Load() != 40_000 {
		t.Errorf("%d bytes were given back", g.n.Load())
	}
	_ = i.Put([]byte("last"), 4)
	i.End()
	i.Fail(errors.New("after the end"))
	if n, whole := i.Ready(); n != 4 || !whole || i.Whole() {
		t.Errorf("%d bytes are ready, whole %v", n, whole)
	}
	if rest, err := io.ReadAll(i); err != nil || string(rest) != "last" || !i.Whole() {
		t.Errorf("%q, %v", rest, err)
	}
	if g.n.Load() != 40_000 {
		t.Errorf("%d bytes were given back to a peer that has ended", g.n.Load())
	}
	i.Close()
	if i.first != nil || !i.Put([]byte("x"), 1) || i.waiting != 0 {
		t.Error("a closed inbox keeps something")
	}
}

func TestInboxWindow(t *testing.T) {
	i, g := newInbox()
	for range testWindow / 1024 {
		if !i.Put(make([]byte, 1000), 1024) {
			t.Fatal("the window is too small")
		}
	}
	if g.n.Load() != 0 {
		t.Errorf("%d bytes were given back unread", g.n.Load())
	}
	if i.Put(nil, 1) {
		t.Error("more than the window was taken")
	}
	// Padding that fills half the window is given back, since nobody will read it.
	i, g = newInbox()
	for range testWindow/2/256 + 1 {
		_ = i.Put([]byte{1}, 257)
	}
	if g.n.Load() < testWindow/2 {
		t.Errorf("%d bytes of padding were given back", g.n.Load())
	}
}

func TestInboxEnds(t *testing.T) {
	failed := errors.New("failed")
	for name, tt := range map[string]struct {
		end  func(*Inbox)
		want string
		err  error
	}{
		"whole":  {(*Inbox).End, "abc", nil},
		"failed": {func(i *Inbox) { i.Fail(failed) }, "abc", failed},
		"cut":    {func(i *Inbox) { i.Cut(failed) }, "", failed},
		"ended, then cut": {func(i *Inbox) {
			i.End()
			i.Cut(failed)
		}, "", failed},
		"failed twice": {func(i *Inbox) {
			i.Fail(failed)
			i.Fail(io.EOF)
			i.End()
		}, "abc", failed},
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := newInbox()
			_ = i.Put([]byte("abc"), 3)
			tt.end(i)
			_ = i.Put([]byte("late"), 4)
			if got, err := io.ReadAll(i); string(got) != tt.want || err != tt.err {
				t.Errorf("%q, %v", got, err)
			}
		})
		t.Run(name+" while Read waits", func(t *testing.T) {
			i, _ := newInbox()
			read := make(chan error, 1)
			go func() {
				_, err := i.Read(make([]byte, 8))
				read <- err
			}()
			waitsInRead(i)
			tt.end(i)
			want := tt.err
			if want == nil {
				want = io.EOF
			}
			if err := <-read; err != want {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
}

func waitsInRead(i *Inbox) {
	for {
		i.mu.Lock()
		waits := i.into != nil
		i.mu.Unlock()
		if waits {
			return
		}
	}
}

// TestInboxStraightThrough: what comes while Read waits goes into its buffer, and the rest is kept.
func TestInboxStraightThrough(t *testing.T) {
	i, _ := newInbox()
	got := make([]byte, 4)
	read := make(chan int, 1)
	go func() {
		n, _ := i.Read(got)
		read <- n
	}()
	waitsInRead(i)
	_ = i.Put([]byte("abcdef"), 6)
	_ = i.Put([]byte("gh"), 2)
	i.End()
	if n := <-read; n != 4 || string(got) != "abcd" {
		t.Errorf("read %d: %q", n, got)
	}
	if rest, err := io.ReadAll(i); err != nil || string(rest) != "efgh" {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestInboxUnderLoad(t *testing.T) {
	i, g := newInbox()
	want := pattern(3 << 20)
	go func() {
		random := rand.New(rand.NewPCG(1, 2))
		sent := 0
		for sent < len(want) {
			room := testWindow - (sent - int(g.n.Load()))
			n := min(random.IntN(9000), len(want)-sent, room)
			if !i.Put(want[sent:sent+n], n) {
				t.Error("the window is smaller than what was given back")
				break
			}
			sent += n
		}
		i.End()
	}()
	var got []byte
	buffer := make([]byte, 5000)
	for {
		n, err := i.Read(buffer[:1+len(got)%len(buffer)])
		got = append(got, buffer[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("the bytes changed")
	}
}

func TestInboxDoesNotAllocate(t *testing.T) {
	i, g := newInbox()
	large, small, buffer := make([]byte, largeChunk), make([]byte, 100), make([]byte, 64<<10)
	allocs := testing.AllocsPerRun(100, func() {
		i.Init(nil, testWindow, testWindow, g)
		_ = i.Put(small, len(small))
		_, _ = i.Read(buffer)
		_ = i.Put(large, len(large))
		_, _ = i.Read(buffer)
		i.End()
		i.Close()
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
