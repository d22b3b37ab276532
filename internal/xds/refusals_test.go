package xds

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

func TestRefusals_onePeer_isLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRefusals(slog.New(slog.NewTextHandler(&log, nil)))
		peer := netip.MustParseAddrPort("100.64.0.9:1")
		for i := range 1_200 { // each five seconds, from another port each
			r.logRefusal(time.Now(), netip.AddrPortFrom(peer.Addr(), uint16(i+1)), "d9", "no endpoint")
			time.Sleep(5 * time.Second)
		}
		if n := strings.Count(log.String(), "stream refused"); n != 100 {
			t.Errorf("told %d times in 100 minutes", n)
		}
		if n := strings.Count(log.String(), "more_since_last_told=11"); n != 99 {
			t.Errorf("the others are counted %d times:\n%.2000s", n, &log)
		}
		r.logRefusal(time.Now(), peer, "d9", "another reason")
		if !strings.Contains(log.String(), "another reason") {
			t.Error("another reason is not told at once")
		}
	})
}

// More peers than are remembered share what is told of them.
func TestRefusals_manyPeers_areLoggedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRefusals(slog.New(slog.NewTextHandler(&log, nil)))
		const peers, minutes = 3 * maxRefusals, 10
		for range minutes * 12 { // each peer comes every five seconds
			peer := netip.MustParseAddr("fd7a:115c:a1e0::1")
			for range peers {
				r.logRefusal(time.Now(), netip.AddrPortFrom(peer, 1), "d", "no endpoint")
				peer = peer.Next()
			}
			time.Sleep(5 * time.Second)
		}
		if n := strings.Count(log.String(), "stream refused"); n > minutes*(maxRefusals+1) {
			t.Errorf("told %d times in %d minutes", n, minutes)
		}
		if len(r.logged) > maxRefusals+1 {
			t.Errorf("%d refusals are remembered", len(r.logged))
		}
		told := 0
		for _, m := range regexp.MustCompile(`more_since_last_told=(\d+)`).FindAllStringSubmatch(log.String(), -1) {
			n, _ := strconv.Atoi(m[1])
			told += 1 + n
		}
		if all := peers * minutes * 12; told < all*9/10 || told > all {
			t.Errorf("%d of %d refusals are told of", told, all)
		}
	})
}

// Each stream is refused from another port, which the reason may name.
func TestRefusals_stream_isLoggedOnceAndCounted(t *testing.T) {
	log := &lockedBuffer{}
	s := newServerWith(Config{
		Log: slog.New(slog.NewTextHandler(log, nil)),
		Identify: func(_ context.Context, from netip.AddrPort) (Identity, error) {
			return Identity{}, fmt.Errorf("whois?addr=%s%%3A%d\x1b[31m: timeout", from.Addr(), from.Port())
		},
	})
	set(t, s, topologytest.OneService())
	const streams = 20
	for range streams {
		_, err := openDelta(t, start(t, s)).Recv()
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "timeout") {
			t.Fatalf("got %v", err)
		}
	}
	if n := strings.Count(log.String(), "stream refused"); n != 1 || strings.Contains(log.String(), `\x1b`) {
		t.Errorf("told %d times:\n%s", n, log)
	}
	if !slices.Contains(s.Counts(), Count{Result: "refused", N: streams}) {
		t.Errorf("counts: %+v", s.Counts())
	}
}
