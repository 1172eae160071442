import { defineConfig } from "vitest/config";

// One page on the server's own origin. No polyfill for module preloading: it would be an inline script, which our policy refuses.
export default defineConfig({
  resolve: { alias: { react: "preact/compat", "react-dom": "preact/compat" } },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    sourcemap: false,
    rolldownOptions: {
      // virtua marks its files for React's server components, which there are none of here.
      onwarn: (warning, warn) => warning.code === "MODULE_LEVEL_DIRECTIVE" || warn(warning),
    },
  },
  test: { environment: "node", include: ["tests/**/*.test.ts"], restoreMocks: true },
});
