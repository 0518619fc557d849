package h2

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// taken is what a Take returned.
type taken struct {
	n   int
	err error
}

// takeLater starts a Take and waits until it waits.
func takeLater(w *Window, n int) <-chan taken {
	done := make(chan taken, 1)
	go func() {
		got, err := w.Take(n)
		done <- taken{got, err}
	}()
	for {
		w.credit.mu.Lock()
		waits := w.waiting
		w.credit.mu.Unlock()
		if waits {
			return done
		}
		select {
		case got := <-done:
			done <- got
			return done
		default:
		}
	}
}

func wantTaken(t *testing.T, done <-chan taken, n int) {
	t.Helper()
	select {
	case got := <-done:
		if got.n != n || got.err != nil {
			t.Errorf("took %d, %v, want %d", got.n, got.err, n)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%d bytes cannot be taken", n)
	}
}

func wantWaiting(t *testing.T, done <-chan taken) {
	t.Helper()
	select {
	case got := <-done:
		t.Fatalf("took %d, %v", got.n, got.err)
	default:
	}
}

func TestWindowOfTheStream(t *testing.T) {
	var c Credit
	c.Init()
	var w Window
	w.Init(&c)
	if err := c.SetInitial(10); err != nil {
		t.Fatal(err)
	}
	wantTaken(t, takeLater(&w, 100), 10)
	if w.TryTake(1) {
		t.Error("took what is not there")
	}
	waits := takeLater(&w, 100)
	if err := c.SetInitial(4); err != nil { // it is -6 now
		t.Fatal(err)
	}
	if !w.Add(6) {
		t.Error("over the bound")
	}
	wantWaiting(t, waits)
	if !w.Add(1) {
		t.Error("over the bound")
	}
	wantTaken(t, waits, 1)
	waits = takeLater(&w, 3)
	if err := c.SetInitial(100); err != nil {
		t.Fatal(err)
	}
	wantTaken(t, waits, 3)
	if !w.TryTake(93) || w.TryTake(1) || !w.TryTake(0) {
		t.Error("the window is not what it should be")
	}
	w.Close()
	w.Init(&c)
	wantTaken(t, takeLater(&w, 1000), 100)
	w.Close()
}

// TestWindowOfTheConnection: those that wait share it in turns; who leaves lets the next one go.
func TestWindowOfTheConnection(t *testing.T) {
	var c Credit
	c.Init()
	windows := make([]Window, 4)
	for i := range windows {
		windows[i].Init(&c)
	}
	wantTaken(t, takeLater(&windows[0], InitialWindow), InitialWindow)
	if err := c.SetInitial(1 << 20); err != nil {
		t.Fatal(err)
	}
	a, b, d := takeLater(&windows[1], 10), takeLater(&windows[2], 10), takeLater(&windows[3], 10)
	if windows[0].TryTake(1) {
		t.Error("overtook those that wait")
	}
	if err := c.Add(15); err != nil {
		t.Fatal(err)
	}
	wantTaken(t, a, 10)
	wantTaken(t, b, 5)
	wantWaiting(t, d)
	again := takeLater(&windows[1], 10)
	failed := errors.New("reset")
	windows[3].Fail(failed)
	if got := <-d; got.err != failed {
		t.Errorf("got %v", got)
	}
	if err := c.Add(3); err != nil {
		t.Fatal(err)
	}
	wantTaken(t, again, 3)
	for i := range windows {
		windows[i].Close()
	}
	if c.windows != nil || c.first != nil || c.last != nil {
		t.Error("closed windows are remembered")
	}
}

func TestWindowBounds(t *testing.T) {
	var broken *ConnError
	var c Credit
	c.Init()
	if err := c.Add(MaxWindow - InitialWindow); err != nil {
		t.Error(err)
	}
	if err := c.Add(1); !errors.As(err, &broken) || broken.Code != FlowControlError {
		t.Errorf("err = %v", err)
	}
	var w Window
	w.Init(&c)
	if !w.Add(1000) {
		t.Error("1000 bytes more are over the bound")
	}
	if err := c.SetInitial(MaxWindow); !errors.As(err, &broken) || broken.Code != FlowControlError {
		t.Errorf("err = %v", err)
	}
	c.Init()
	w.Init(&c)
	if w.Add(MaxWindow) {
		t.Error("the stream's window has no bound")
	}
}

func TestWindowEnds(t *testing.T) {
	var c Credit
	c.Init()
	gone := errors.New("gone")
	windows := make([]Window, 2)
	for i := range windows {
		windows[i].Init(&c)
		_, _ = windows[i].Take(InitialWindow / 2)
	}
	_, _ = windows[0].Take(1)
	waits := []<-chan taken{takeLater(&windows[0], 1), takeLater(&windows[1], 1)}
	c.Fail(gone)
	c.Fail(errors.New("later"))
	for _, w := range waits {
		if got := <-w; got.err != gone {
			t.Errorf("got %v", got)
		}
	}
	if got := <-takeLater(&windows[0], 1); got.err != gone || windows[0].TryTake(0) {
		t.Errorf("got %v", got)
	}
}

// TestWindowsUnderLoad: nothing is lost and nothing is taken twice.
func TestWindowsUnderLoad(t *testing.T) {
	const streams, each = 20, 100_000
	var c Credit
	c.Init()
	var all sync.WaitGroup
	windows := make([]Window, streams)
	for i := range windows {
		w := &windows[i]
		w.Init(&c)
		all.Go(func() {
			for left := each; left > 0; {
				n, err := w.Take(min(left, 1000))
				if err != nil {
					t.Error(err)
					return
				}
				left -= n
			}
			w.Close()
		})
	}
	for i := range windows {
		all.Go(func() { windows[i].Add(each - InitialWindow) })
	}
	for given := InitialWindow; given < streams*each; given += 500 {
		if err := c.Add(uint32(min(500, streams*each-given))); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	if c.left != 0 {
		t.Errorf("%d bytes are left", c.left)
	}
}

func TestReceive(t *testing.T) {
	var r Receive
	r.Init(nil, 100, 1000)
	if !r.Got(100) || r.Got(1) {
		t.Error("the window is not 100 bytes")
	}
	r.Init(nil, 100, 1000)
	if give := r.Done(0, 1); give != 0 {
		t.Errorf("gave %d for nothing", give)
	}
	_ = r.Got(100)
	if r.Due(49) || !r.Due(50) || r.Done(49, 1) != 0 || r.Done(1, 1) != 50 || r.Done(50, 2) != 50 {
		t.Error("half of the window is not given back")
	}
	if !r.Got(100) || r.Got(1) {
		t.Error("a window without a Tuner grew")
	}
}

// TestReceiveGrows: while its half is read within two round trips, up to its bound.
func TestReceiveGrows(t *testing.T) {
	var tuner Tuner
	if !tuner.Probe(1000) || tuner.Probe(1001) {
		t.Fatal("not one probe is sent")
	}
	tuner.Acked(2000) // the round trip is 1000
	tuner.Acked(9000) // nobody asked
	if tuner.Probe(3000) || !tuner.Probe(2000+int64(probePeriod)) {
		t.Error("the period between probes is not kept")
	}
	tuner.Acked(2000 + int64(probePeriod) + 5000) // slower: the least counts
	var r Receive
	r.Init(&tuner, 100, 350)
	now := int64(0)
	for _, step := range []struct {
		n      int
		later  int64
		give   uint32
		window int64
	}{
		{50, 1, 50, 100},      // nothing to compare with yet
		{50, 1999, 150, 200},  // in less than two round trips
		{99, 1, 0, 200},       // not its half
		{1, 1999, 100, 200},   // its half, in two round trips
		{100, 10, 250, 350},   // up to the bound
		{175, 10, 175, 350},   // and not beyond
		{350, 1e9, 350, 350},  // slow
		{175, 2001, 175, 350}, // slow
	} {
		now += step.later
		_ = r.Got(step.n)
		if give := r.Done(step.n, now); give != step.give || r.size != step.window {
			t.Errorf("%+v: gave %d, the window is %d", step, give, r.size)
		}
		if r.left+r.owed != r.size {
			t.Errorf("%+v: %d are left and %d owed of %d", step, r.left, r.owed, r.size)
		}
	}
}
