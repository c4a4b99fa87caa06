import { defineConfig } from "vite";

// Relative addresses: the built page works in any folder of any server.
export default defineConfig({ base: "./", build: { target: "es2022", chunkSizeWarningLimit: 1000 } });
