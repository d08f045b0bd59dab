"""How alike two videos are: PSNR, SSIM and LPIPS frame by frame, the Frechet video distance of two sets; and `opensora evaluate`."""
