package dashboard

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
)

//go:embed web/*.html web/*.css web/*.js web/*.svg
var files embed.FS

// assets are the page's files, each also compressed. Their path holds the hash of
// all of them, so that they are cached for good and never mixed between builds.
type assets struct {
	hash  string
	files map[string]asset
}

type asset struct {
	contentType    string
	plain, gzipped []byte
}

// loadAssets reads the files that are part of the program.
func loadAssets() assets {
	web, err := fs.Sub(files, "web")
	if err != nil {
		panic(err) // the path is ours
	}
	names, err := fs.Glob(web, "*")
	if err != nil {
		panic(err) // the pattern is ours
	}
	slices.Sort(names)
	a := assets{files: make(map[string]asset)}
	sum := sha256.New()
	for _, name := range names {
		plain, err := fs.ReadFile(web, name)
		if err != nil {
			panic(err) // it is embedded
		}
		sum.Write([]byte(name))
		sum.Write(plain)
		a.files[name] = asset{mime.TypeByExtension(path.Ext(name)), plain, compress(plain)}
	}
	a.hash = hex.EncodeToString(sum.Sum(nil))[:12]
	return a
}

func compress(plain []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is ours
	}
	_, _ = w.Write(plain) // a bytes.Buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

// index is the page itself, with the hash in its links.
func (a assets) index() http.Handler {
	text := bytes.ReplaceAll(a.files["index.html"].plain, []byte("HASH"), []byte(a.hash))
	page := asset{"text/html; charset=utf-8", text, compress(text)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { page.serve(w, r) })
}

func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	file, ok := a.files[r.PathValue("file")]
	if !ok || r.PathValue("hash") != a.hash {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	file.serve(w, r)
}

func (f asset) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.contentType)
	w.Header().Set("Vary", "Accept-Encoding")
	body := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		body = f.gzipped
	}
	_, _ = w.Write(body) // the client went away: nobody to tell
}
