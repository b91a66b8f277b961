package store_test

import (
	"context"
	"testing"
	"time"

	"carob.dev/carob/internal/store"
	"carob.dev/carob/internal/store/storetest"
)

func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Dir: t.TempDir(), ProgressInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSuite(t *testing.T) { storetest.Run(t, openStore) }
